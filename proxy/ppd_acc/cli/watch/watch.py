"""watch: compare two engines every so often, for days; ends by a count, a signal, or failures in a row."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from ppd_acc.ask.engines import engines
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import (
    access_of,
    add_access_flags,
    add_noise_flag,
    add_pair_flags,
    add_sampling_flags,
    between,
    needed,
    option,
    positive,
    sampling_of,
    whole_number_of,
)
from ppd_acc.cli.prompts import add_prompt_flags, prompts_of
from ppd_acc.compare.compare import noise_of
from ppd_acc.compare.decisions import decision_data
from ppd_acc.outcome import Mistake, Result
from ppd_acc.views import counted, nats, noise_line
from ppd_acc.watch.rounds import End, Plan, Sink, Watcher, exit_of, judged
from ppd_acc.watch.sinks import (
    ConsoleLine,
    LogFile,
    MetricsFile,
    WatchMetrics,
    metrics_server,
    window_data,
)

_INTERVAL_S, _NOISE_ANSWERS, _NOISE_EVERY, _WINDOW, _CONFIDENCE = 60.0, 12, 60, 100, 0.95
_ENDS = (
    ("iterations", "--max-iterations is reached"),
    ("alert", "--alert-threshold failures in a row"),
    ("signal", "told to end by a signal"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pair_flags(parser)
    add_prompt_flags(parser, "compared in every round")
    parser.add_argument(
        "--interval", type=between(0, 1e7), default=_INTERVAL_S, metavar="S", help="from round to round (default 60)"
    )
    parser.add_argument("--max-iterations", type=positive, metavar="N", help="rounds after which it ends")
    parser.add_argument(
        "--alert-threshold", type=positive, metavar="N", help="failures in a row after which it ends with 1"
    )
    parser.add_argument("--fail-threshold", type=between(0, 1), metavar="F", help="highest rate of real differences")
    parser.add_argument("--confidence-level", type=between(0.5, 0.999999), default=_CONFIDENCE, metavar="F")
    parser.add_argument(
        "--window", type=positive, default=_WINDOW, metavar="N", help=f"comparisons the gate is over ({_WINDOW})"
    )
    parser.add_argument(
        "--noise-every", type=positive, default=_NOISE_EVERY, metavar="N",
        help=f"rounds after which the noise floor is measured anew (default {_NOISE_EVERY})",
    )  # fmt: skip
    parser.add_argument("--log", metavar="FILE", help="one JSON line a round, appended")
    parser.add_argument(
        "--metrics-port", type=whole_number_of("metrics_port"), metavar="N",
        help="Prometheus metrics at /metrics; 0: any",
    )
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST", help="default 127.0.0.1")
    parser.add_argument("--metrics-file", metavar="FILE", help="the same metrics, replaced after every round")
    parser.add_argument(
        "--skip-healthcheck", action="store_true", help="accepted; an engine that fails is a round's error"
    )
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_noise_flag(parser, _NOISE_ANSWERS)


async def run(args: argparse.Namespace, context: Context) -> Result:
    urls = [needed(args, context.settings, side) for side in ("baseline", "target")]
    sampling = sampling_of(args, context.settings)
    plan = _plan(args, context)
    metrics = WatchMetrics(plan)
    sinks: list[Sink] = [metrics]
    log = _log(args, context, plan)
    if log is not None:
        sinks.append(log)
    if args.metrics_file is not None:
        sinks.append(MetricsFile(context.directory / args.metrics_file, metrics, context.errors))
    if not args.quiet:
        sinks.append(ConsoleLine(plan, context.errors))
    async with AsyncExitStack() as stack:
        opened = engines(access_of(args, context.settings), *urls, sides=("baseline", "target"))
        baseline, target = await stack.enter_async_context(opened)
        if args.metrics_port is not None:
            server = metrics_server(args.metrics_host, args.metrics_port, metrics)
            url = await stack.enter_async_context(server)
            context.errors.print(Text(f"metrics: {url}"))
        watcher = Watcher(
            baseline, target, sampling, plan, wall_clock=context.wall_clock,
            clock=asyncio.get_running_loop().time, wait=asyncio.sleep, sinks=sinks,
        )  # fmt: skip
        end = await until_signal(watcher)
    return with_model_notes(_result(end, watcher, plan, log.lost if log is not None else 0), baseline, target)


def _plan(args: argparse.Namespace, context: Context) -> Plan:
    return Plan(
        prompts=tuple(prompts_of(args, context.directory)),
        interval_s=args.interval,
        max_iterations=args.max_iterations,
        alert_threshold=args.alert_threshold,
        noise_answers=option(args, context.settings, "noise_floor", _NOISE_ANSWERS),
        noise_every=args.noise_every,
        window=args.window,
        fail_threshold=args.fail_threshold,
        confidence=args.confidence_level,
    )


def _log(args: argparse.Namespace, context: Context, plan: Plan) -> LogFile | None:
    if args.log is None:
        return None
    path: Path = context.directory / args.log
    log = LogFile(path, plan, context.errors)
    try:
        log.check()
    except OSError as error:
        raise Mistake(f"--log {path}: {error.strerror or error}") from None
    return log


async def until_signal(watcher: Watcher) -> End:
    """The watch's own end, or SIGINT or SIGTERM: then the round under way is left out."""
    try:
        async with asyncio.timeout(None) as scope:
            with _on_signals(scope):
                return await watcher.run()
    except TimeoutError:
        return "signal"


@contextmanager
def _on_signals(scope: asyncio.Timeout) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def end() -> None:
        if not scope.expired():  # a second signal changes nothing
            scope.reschedule(loop.time())

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _result(end: End, watcher: Watcher, plan: Plan, lost: int) -> Result:
    state = watcher.state
    decision = judged(state, plan.fail_threshold, plan.confidence)
    rounds = state.rounds.total()
    data: dict[str, Any] = {
        "end": end,
        "rounds": dict(state.rounds),
        "comparisons": dict(state.comparisons),
        "failures_in_a_row": state.in_a_row,
        "window": window_data(state, plan),
        "gate": decision_data(decision),
        "largest_shift": state.largest_shift,
        "largest_delta": state.largest_delta,
        "noise": msgspec.to_builtins(noise_of(state.floor)),
        "settings": {
            "interval_s": plan.interval_s, "window": plan.window, "noise_every": plan.noise_every,
            "fail_threshold": plan.fail_threshold, "alert_threshold": plan.alert_threshold,
            "confidence": plan.confidence, "prompts": list(plan.prompts),
        },
    }  # fmt: skip
    counts = ", ".join(f"{count} {outcome}" for outcome, count in state.rounds.items()) or "none"
    view = (
        Text(f"{decision.outcome}: {decision.reason}"),
        Text(f"{counted(rounds, 'round')} ({counts}); ended: {dict(_ENDS)[end]}"),
        Text(
            f"largest logprob difference {nats(state.largest_delta)}, largest shift of a first difference"
            f" {'none' if state.largest_shift is None else nats(state.largest_shift)}"
        ),
        Text(noise_line(state.floor)),
    )
    notes = (f"{counted(lost, 'round')} could not be written to --log",) if lost else ()
    return Result(exit=exit_of(end, state, decision), data=data, view=view, notes=notes)


COMMANDS = (Command(name="watch", add_arguments=add_arguments, run=run),)
