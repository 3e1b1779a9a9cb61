"""Comparing two engines round after round, for days: what is kept is a window of outcomes and some counters.

Nothing here sleeps or reads a clock: waiting and clocks are given. Sinks (log, metrics, console) hear of every round.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare, noise_floor
from ppd_acc.data.report import Sample, Status
from ppd_acc.outcome import Exit
from ppd_acc.views import counted, empty_too
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.said import EMPTY
from ppd_accuracy.statistics import gates

Outcome = Literal["pass", "fail", "inconclusive", "error", "empty"]
End = Literal["iterations", "alert", "signal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a watch does. `max_iterations` and `alert_threshold` (failures in a row) are None for no limit;
    `fail_threshold` is of the share of real differences in the window, None: there may be none."""

    prompts: tuple[str, ...]
    interval_s: float
    max_iterations: int | None
    alert_threshold: int | None
    noise_answers: int
    noise_every: int
    window: int
    fail_threshold: float | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One comparison of all prompts. `at` is in Unix seconds; `error` says why there was no comparison at all."""

    iteration: int
    at: float
    duration_s: float
    samples: tuple[Sample, ...]
    error: str | None = None

    @property
    def outcome(self) -> Outcome:
        statuses = {sample.status for sample in self.samples}
        if "real" in statuses:
            return "fail"
        if self.error is not None or "error" in statuses:
            return "error"
        if "unclassified" in statuses:
            return "inconclusive"
        return "empty" if statuses == {"empty"} else "pass"


@dataclass(slots=True)
class State:
    """What is known after the rounds so far. `window` holds the last statuses, errors too."""

    window: deque[Status]
    floor: ReplayNoise = field(default_factory=ReplayNoise)
    floor_at: float | None = None
    rounds: Counter[Outcome] = field(default_factory=Counter)
    comparisons: Counter[Status] = field(default_factory=Counter)
    in_a_row: int = 0
    has_real_in_a_row: bool = False
    largest_shift: float | None = None
    largest_delta: float | None = None
    trouble: str | None = None
    """Which side failed last, how often in a row, and why."""

    def add(self, done: Round) -> None:
        self.rounds[done.outcome] += 1
        statuses: list[Status] = [sample.status for sample in done.samples] or ["error"]
        self.window.extend(statuses)
        self.comparisons.update(statuses)
        is_failure = done.outcome in ("fail", "error")
        self.in_a_row = self.in_a_row + 1 if is_failure else 0
        self.has_real_in_a_row = is_failure and (self.has_real_in_a_row or done.outcome == "fail")
        failed = next((sample for sample in done.samples if sample.error is not None), None)
        if done.error is not None or failed is not None:
            side, why = ("baseline", done.error) if failed is None else (failed.failed, failed.error)
            told = (why or "").removeprefix("--baseline: ")
            self.trouble = f"the {side} failed {counted(self.in_a_row, 'time')} in a row: {told}"
        for sample in done.samples:
            if sample.flip is not None:
                self.largest_shift = _larger(self.largest_shift, sample.flip.shift)
            self.largest_delta = _larger(self.largest_delta, sample.max_delta)

    def in_window(self) -> Counter[Status]:
        return Counter(self.window)


def _larger(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)


def gate(window: Counter[Status], fail_threshold: float | None, confidence: float) -> gates.Decision:
    """Of the real differences among what was compared in the window. Errors and empty answers are no comparisons; what
    could not be classified may be real, so it counts against passing and not towards failing."""
    real, unclassified = window["real"], window["unclassified"]
    compared = window.total() - window["error"] - window["empty"]
    if window["empty"] and not compared:
        return gates.Decision(outcome="inconclusive", reason=EMPTY)
    also = empty_too(window["empty"])
    if fail_threshold is not None:
        judged = gates.rate(real, compared, fail_threshold, confidence, "real differences")
        if unclassified and judged.outcome != "fail":
            name = "real or unclassified differences"
            judged = gates.rate(real + unclassified, compared, fail_threshold, confidence, name)
            if judged.outcome == "fail":
                judged = replace(judged, outcome="inconclusive", more_samples=None)
        return replace(judged, reason=f"{judged.reason}{also}")
    seen = f"{real} of the last {compared} comparisons differ by more than the noise floor{also}"
    if real:
        return gates.Decision(outcome="fail", reason=seen)
    if unclassified or not compared:
        return gates.Decision(outcome="inconclusive", reason=f"{seen}, {unclassified} are not to be classified")
    return gates.Decision(outcome="pass", reason=seen)


def judged(state: State, fail_threshold: float | None, confidence: float) -> gates.Decision:
    """The gate of a state's window; where nothing in it was compared, it says why."""
    window = state.in_window()
    if window["error"] and window["error"] == window.total():
        return gates.Decision(outcome="inconclusive", reason=f"no comparison was possible: {state.trouble}")
    return gate(window, fail_threshold, confidence)


def exit_of(end: End, state: State, decision: gates.Decision) -> Exit:
    """An alert is 1, or 3 where engines failed and nothing else did. Else the gate decides; errors in the window leave
    a pass partial (3)."""
    if end == "alert":
        return Exit.DIFFERENT if state.has_real_in_a_row else Exit.INFRASTRUCTURE
    if decision.outcome == "fail":
        return Exit.DIFFERENT
    if state.in_window()["error"]:
        return Exit.INFRASTRUCTURE
    return Exit.PASS if decision.outcome == "pass" else Exit.INCONCLUSIVE


Sink = Callable[[Round, State], None]


class Watcher:
    """`wait` returns when so many seconds have passed; `wall_clock` gives Unix seconds, `clock` monotonic ones."""

    def __init__(
        self,
        baseline: Engine,
        target: Engine,
        sampling: Sampling,
        plan: Plan,
        *,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        wait: Callable[[float], Awaitable[None]],
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._baseline = baseline
        self._target = target
        self._sampling = sampling
        self._plan = plan
        self._wall_clock = wall_clock
        self._clock = clock
        self._wait = wait
        self._sinks = sinks
        self._questions = [Question(prompt=prompt) for prompt in plan.prompts]
        self.state = State(window=deque(maxlen=plan.window))

    async def run(self) -> End:
        """Round after round, each `interval_s` after the start of the one before, or at once where that took longer."""
        plan, iteration = self._plan, 0
        while True:
            started_at = self._clock()
            done = await self._round(iteration, started_at)
            self.state.add(done)
            for sink in self._sinks:
                sink(done, self.state)
            iteration += 1
            if plan.alert_threshold is not None and self.state.in_a_row >= plan.alert_threshold:
                return "alert"
            if plan.max_iterations is not None and iteration >= plan.max_iterations:
                return "iterations"
            await self._wait(max(0.0, plan.interval_s - (self._clock() - started_at)))

    async def _round(self, iteration: int, started_at: float) -> Round:
        at = self._wall_clock()
        samples: tuple[Sample, ...] = ()
        error = await self._renew_floor(iteration, at)
        if error is None:
            samples = tuple(
                await asyncio.gather(
                    *(
                        compare(
                            self._baseline, self._target, f"{iteration}-{number}", question, self._sampling,
                            self.state.floor,
                        )
                        for number, question in enumerate(self._questions)
                    )
                )
            )  # fmt: skip
        duration_s = self._clock() - started_at
        return Round(iteration=iteration, at=at, duration_s=duration_s, samples=samples, error=error)

    async def _renew_floor(self, iteration: int, at: float) -> str | None:
        """Measures the noise floor where it is due; a floor that could not be renewed stays. Returns why there is
        none at all."""
        plan, state = self._plan, self.state
        if not plan.noise_answers or (state.floor_at is not None and iteration % plan.noise_every):
            return None
        try:
            state.floor = await noise_floor(
                self._baseline, self._questions, self._sampling, plan.noise_answers, lambda _: None
            )
            state.floor = state.floor.of_run(len(self._questions))
        except EngineTrouble as trouble:
            return f"--baseline: noise floor: {trouble}" if state.floor_at is None else None
        state.floor_at = at
        return None
