"""watch: compare two engines every so often, for days; ends by a count, a signal, or failures in a row."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from ppd_acc.ask.access import Terms
from ppd_acc.ask.engines import engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.cli.flags import between, confidence_flag, pair_flags, positive, terms_flags, whole_number_of
from ppd_acc.cli.options import derived, flag, switch, value
from ppd_acc.cli.prompts import prompts_flags
from ppd_acc.compare.compare import noise_of
from ppd_acc.compare.decisions import decision_data
from ppd_acc.outcome import Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted, nats, noise_line
from ppd_acc.watch.rounds import End, Plan, Sink, Watcher, exit_of, judged
from ppd_acc.watch.sinks import ConsoleLine, LogFile, MetricsFile, WatchMetrics, metrics_server, window_data

_INTERVAL_S, _NOISE_ANSWERS, _NOISE_EVERY, _WINDOW = 60.0, 12, 60, 100
_ENDS = (
    ("iterations", "--max-iterations is reached"),
    ("alert", "--alert-threshold failures in a row"),
    ("signal", "told to end by a signal"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Mapping[str, str] = pair_flags()
    prompts: Sequence[str] = prompts_flags("compared in every round")
    interval: float = flag(
        type=between(0, 1e7), default=_INTERVAL_S, metavar="S", help="from round to round (default 60)"
    )
    max_iterations: int | None = value("N", "rounds after which it ends", positive)
    alert_threshold: int | None = value("N", "failures in a row after which it ends with 1", positive)
    fail_threshold: float | None = value("F", "highest rate of real differences", between(0, 1))
    confidence_level: float = confidence_flag()
    window: int = flag(type=positive, default=_WINDOW, metavar="N", help=f"comparisons the gate is over ({_WINDOW})")
    noise_every: int = value("N", "rounds after which the noise floor is measured anew", positive, _NOISE_EVERY)
    log: str | None = value("FILE", "one JSON line a round, appended")
    metrics_port: int | None = value("N", "Prometheus metrics at /metrics; 0: any", whole_number_of("metrics_port"))
    metrics_host: str = flag(default="127.0.0.1", metavar="HOST", help="default 127.0.0.1")
    metrics_file: str | None = value("FILE", "the same metrics, replaced after every round")
    skip_healthcheck: bool = switch("accepted; an engine that fails is a round's error")
    terms: Terms = terms_flags(_NOISE_ANSWERS)
    is_quiet: bool = derived(lambda given: given.flag("quiet"))

    @property
    def plan(self) -> Plan:
        return Plan(
            prompts=tuple(self.prompts),
            interval_s=self.interval,
            max_iterations=self.max_iterations,
            alert_threshold=self.alert_threshold,
            noise_answers=self.terms.noise_answers,
            noise_every=self.noise_every,
            window=self.window,
            fail_threshold=self.fail_threshold,
            confidence=self.confidence_level,
        )


async def run(options: Options, surroundings: Surroundings) -> Result:
    plan, errors = options.plan, surroundings.errors
    metrics = WatchMetrics(plan)
    sinks: list[Sink] = [metrics]
    log = _log(surroundings.directory / options.log, plan, errors) if options.log is not None else None
    if log is not None:
        sinks.append(log)
    if options.metrics_file is not None:
        sinks.append(MetricsFile(surroundings.directory / options.metrics_file, metrics, errors))
    if not options.is_quiet:
        sinks.append(ConsoleLine(plan, errors))
    async with AsyncExitStack() as stack:
        opened = engines_by_side(options.terms.access, options.urls)
        baseline, target = await stack.enter_async_context(opened)
        if options.metrics_port is not None:
            server = metrics_server(options.metrics_host, options.metrics_port, metrics)
            url = await stack.enter_async_context(server)
            errors.print(Text(f"metrics: {url}"))
        watcher = Watcher(
            baseline, target, options.terms.sampling, plan, wall_clock=surroundings.wall_clock,
            clock=asyncio.get_running_loop().time, wait=asyncio.sleep, sinks=sinks,
        )  # fmt: skip
        end = await until_signal(watcher)
    return with_model_notes(_result(end, watcher, plan, log.lost if log is not None else 0), baseline, target)


def _log(path: Path, plan: Plan, errors: Console) -> LogFile:
    log = LogFile(path, plan, errors)
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
        f"{decision.outcome}: {decision.reason}",
        f"{counted(rounds, 'round')} ({counts}); ended: {dict(_ENDS)[end]}",
        f"largest logprob difference {nats(state.largest_delta)}, largest shift of a first difference"
            f" {'none' if state.largest_shift is None else nats(state.largest_shift)}",
        noise_line(state.floor),
    )
    notes = (f"{counted(lost, 'round')} could not be written to --log",) if lost else ()
    return Result(exit=exit_of(end, state, decision), data=data, view=view, notes=notes)
