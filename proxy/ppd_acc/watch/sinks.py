"""Where the rounds of a watch go: a log of JSON lines, Prometheus metrics, a line for people."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from rich.console import Console
from rich.text import Text

from ppd_acc.compare.compare import noise_of
from ppd_acc.compare.decisions import decision_data
from ppd_acc.data.report import STATUSES, Sample
from ppd_acc.outcome import Trouble
from ppd_acc.views import counted
from ppd_acc.watch.rounds import Plan, Round, State, gate, judged

LOG_VERSION = 1


def round_data(done: Round, state: State, plan: Plan) -> dict[str, Any]:
    """One line of the log. `samples` are in the order of the prompts."""
    noise = noise_of(state.floor)
    window = state.in_window()
    return {
        "version": LOG_VERSION,
        "at": done.at,
        "iteration": done.iteration,
        "outcome": done.outcome,
        "duration_s": done.duration_s,
        "error": done.error,
        "samples": [_sample(sample) for sample in done.samples],
        "failures_in_a_row": state.in_a_row,
        "window": window_data(state, plan),
        "gate": decision_data(gate(window, plan.fail_threshold, plan.confidence)),
        "noise": {
            "measured_at": state.floor_at, "answers": noise.answers, "flips": noise.flips, "tokens": noise.tokens,
            "broken": noise.broken, "largest_shift": noise.largest_shift, "largest_delta": noise.largest_delta,
        },
    }  # fmt: skip


def window_data(state: State, plan: Plan) -> dict[str, int]:
    window = state.in_window()
    told = (status for status in STATUSES if status != "empty" or window[status])
    return {"size": plan.window, **{status: window[status] for status in told}}


def _sample(sample: Sample) -> dict[str, Any]:
    """Without texts: a log of days must stay small."""
    told: dict[str, Any] = {"status": sample.status, "unit": sample.unit, "compared_tokens": sample.compared_tokens}
    told |= {"mean_delta": sample.mean_delta, "max_delta": sample.max_delta, "not_numbers": sample.not_numbers}
    if sample.flip is not None:
        told["flip"] = msgspec.to_builtins(sample.flip)
    if sample.differences:
        told["differences"] = [{"part": each.part, "at": each.at} for each in sample.differences]
    if sample.error is not None:
        told |= {"error": sample.error, "failed": sample.failed}
    return told


class LogFile:
    """JSON lines, appended. The file is opened anew each time, so that it may be moved away; a line that a killed
    process left unfinished is ended first. What cannot be written is counted and told, and the watch goes on."""

    def __init__(self, path: Path, plan: Plan, errors: Console) -> None:
        self._path = path
        self._plan = plan
        self._errors = errors
        self.lost = 0

    def check(self) -> None:
        """Raises OSError where nothing can be written."""
        with self._path.open("ab"):
            pass

    def __call__(self, done: Round, state: State) -> None:
        line = msgspec.json.encode(round_data(done, state, self._plan)) + b"\n"
        try:
            start = b"" if self._is_whole() else b"\n"
            with self._path.open("ab", buffering=0) as file:
                file.write(start + line)
        except OSError as error:
            self.lost += 1
            self._errors.print(Text(f"--log {self._path}: {error.strerror or error}; round {done.iteration} is lost"))

    def _is_whole(self) -> bool:
        if not self._path.exists() or not self._path.stat().st_size:
            return True
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


class ConsoleLine:
    """One line per round."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console

    def __call__(self, done: Round, state: State) -> None:
        statuses = statuses_of(done)
        told = done.error or ", ".join(f"{count} {status}" for status, count in statuses.items())
        failed = next((sample.error for sample in done.samples if sample.error is not None), None)
        decision = judged(state, self._plan.fail_threshold, self._plan.confidence)
        line = f"round {done.iteration}: {done.outcome}: {told}; {decision.outcome}: {decision.reason}"
        if failed is not None and failed not in decision.reason:
            line += f"; {failed}"
        if state.in_a_row:
            line += f"; {counted(state.in_a_row, 'failure')} in a row"
        self._console.print(Text(line))


def statuses_of(done: Round) -> Mapping[str, int]:
    return {status: count for status in STATUSES if (count := sum(sample.status == status for sample in done.samples))}


class WatchMetrics:
    """Prometheus metrics of a watch, on a registry of its own."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.registry = CollectorRegistry()
        prefix = "ppd_acc_watch_"
        self._rounds = Counter(f"{prefix}rounds", "Rounds by outcome", ["outcome"], registry=self.registry)
        self._comparisons = Counter(
            f"{prefix}comparisons", "Compared prompts by status", ["status"], registry=self.registry
        )
        for outcome in ("pass", "fail", "inconclusive", "error", "empty"):
            self._rounds.labels(outcome)
        for status in STATUSES:
            self._comparisons.labels(status)
        self._window = Gauge(
            f"{prefix}window_comparisons", "Statuses in the window", ["status"], registry=self.registry
        )
        self._gate = Gauge(
            f"{prefix}gate", "1 for the gate's outcome over the window", ["outcome"], registry=self.registry
        )
        self._gauges = {
            name: Gauge(prefix + name, text, registry=self.registry)
            for name, text in (
                ("failures_in_a_row", "Rounds that failed, without one between them that did not"),
                ("last_round_timestamp_seconds", "Start of the last round"),
                ("last_round_seconds", "Duration of the last round"),
                ("last_max_logprob_difference_nats", "Largest of the last round, before the first difference"),
                ("noise_largest_shift_nats", "Largest shift of the noise floor"),
                ("noise_largest_logprob_difference_nats", "Largest logprob difference of the noise floor"),
                ("noise_timestamp_seconds", "When the noise floor was measured"),
            )
        }

    def __call__(self, done: Round, state: State) -> None:
        self._rounds.labels(done.outcome).inc()
        for status, count in statuses_of(done).items():
            self._comparisons.labels(status).inc(count)
        if not done.samples:
            self._comparisons.labels("error").inc()
        window = state.in_window()
        for status in STATUSES:
            self._window.labels(status).set(window[status])
        decision = gate(window, self._plan.fail_threshold, self._plan.confidence)
        for outcome in ("pass", "fail", "inconclusive"):
            self._gate.labels(outcome).set(outcome == decision.outcome)
        deltas = [sample.max_delta for sample in done.samples if sample.max_delta is not None]
        values = {
            "failures_in_a_row": state.in_a_row,
            "last_round_timestamp_seconds": done.at,
            "last_round_seconds": done.duration_s,
            "last_max_logprob_difference_nats": max(deltas, default=None),
            "noise_largest_shift_nats": state.floor.largest_shift,
            "noise_largest_logprob_difference_nats": state.floor.largest_delta,
            "noise_timestamp_seconds": state.floor_at,
        }
        for name, value in values.items():
            self._gauges[name].set(float("nan") if value is None else value)

    def render(self) -> bytes:
        return generate_latest(self.registry)


class MetricsFile:
    """The metrics in a file for a textfile collector, replaced in one step after every round."""

    def __init__(self, path: Path, metrics: WatchMetrics, errors: Console) -> None:
        self._path = path
        self._metrics = metrics
        self._errors = errors

    def __call__(self, done: Round, state: State) -> None:
        unfinished = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            unfinished.write_bytes(self._metrics.render())
            unfinished.replace(self._path)
        except OSError as error:
            self._errors.print(Text(f"--metrics-file {self._path}: {error.strerror or error}"))


@asynccontextmanager
async def metrics_server(host: str, port: int, metrics: WatchMetrics) -> AsyncIterator[str]:
    """Serves GET /metrics in this event loop; gives the URL. Port 0 is any free one. Raises Trouble."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Trouble(f"--metrics-port {port}: {error.strerror or error}") from None
        yield f"http://{host}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()
