"""The shadow: takes samples, has the baseline check them, and keeps verdicts, journal and metrics.

Nothing here is on a client's way: a sample is offered after the client has its answer, and is dropped, and counted,
when the queue is full, the baseline is slow, busy or down. Workers take jobs from the schedule, ask the baseline, and
hand what they found to the judge.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Protocol

import msgspec

from ppd_accuracy.answers.scores import BROKEN, Scores, Statistics, scores_of, summarize
from ppd_accuracy.verdicts.noise import NoiseKey, reference_of
from ppd_accuracy.verdicts.rows import SampleRow
from ppd_accuracy.verdicts.verdicts import Verdicts
from ppd_core.policy.plan import Route
from ppd_proxy.shadow.baseline import BaselineError, Baselines, spread_of_both
from ppd_proxy.shadow.check import Check
from ppd_proxy.shadow.judge import Judge, method_of, noise_key, says_nothing
from ppd_proxy.shadow.replay import difference_of, scores_of_replay
from ppd_proxy.shadow.sample import Sample, is_sampled
from ppd_proxy.shadow.schedule import NOISE_PAUSE_S, Job, Schedule
from ppd_proxy.shadow.seeds import NoiseRequest, Seeds
from ppd_wire.answers.candidate import Candidate
from ppd_wire.answers.scored import Position
from ppd_wire.requests.checks import replay_body

log = logging.getLogger(__name__)

class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much is checked, and how. `rate` may change while running; `top_logprobs` (how many of the likeliest tokens
    are compared) ends where an engine refuses as many."""

    rate: float
    method: str
    concurrency: int
    queue: int
    max_body_bytes: int
    noise_share: float
    top_logprobs: int = 0


class ShadowCounts(Protocol):
    """What the metrics want to know."""

    def sampled(self, route: str, outcome: str) -> None: ...

    def dropped(self, reason: str) -> None: ...

    def judged(
        self,
        route: str,
        *,
        token_accuracy: float,
        max_delta: float,
        first_divergence: int | None,
        length_delta: int | None,
    ) -> None: ...

    def noise(self, max_delta: float) -> None: ...


class Ledger(Protocol):
    """Where finished checks are written."""

    def add(self, row: SampleRow) -> None: ...


class Shadow:
    """What `work` gives has to run. `clock` gives monotonic seconds; `on_judged` is called when a verdict may have
    changed, `ledger` gets every judged sample, `red_in_use` gives the scopes that are red though nobody took them out
    of use."""

    def __init__(
        self,
        budget: Budget,
        baselines: Baselines,
        verdicts: Verdicts,
        seeds: Seeds,
        telemetry: ShadowCounts,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.budget = budget
        self.verdicts = verdicts
        self._baselines = baselines
        self._schedule = Schedule(seeds, queue=budget.queue)
        self._judge = Judge(verdicts)
        self._telemetry = telemetry
        self._clock = clock
        self.ledger: Ledger | None = None
        self.on_judged: Callable[[], None] = lambda: None
        self.red_in_use: Callable[[], Iterable[str]] = tuple
        self._wake = asyncio.Event()
        self._learning = asyncio.Lock()
        """One healthy sample at a time: each makes the next reference of all before it."""
        self.checking = 0
        """Checks and noise measurements under way."""
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.drops: Counter[str] = Counter()
        self.took_ms: dict[str, float] = {}
        """Milliseconds of the baseline's time by method, of `checks` finished checks."""
        self.checks: Counter[str] = Counter()

    # What the director calls

    def is_sampled(self, request_id: str) -> bool:
        return self.budget.rate > 0 and is_sampled(request_id, self.budget.rate)

    def takes(self, body_bytes: int) -> bool:
        """Whether there is room for a sample of a request of that size; one without is counted as dropped."""
        if body_bytes > self.budget.max_body_bytes:
            self.drop("body_too_large")
        elif self._schedule.is_full:
            self.drop("queue_full")
        else:
            return True
        return False

    def offer(self, sample: Sample) -> None:
        """Take a sample, or drop it; never waits. Others may have come since `takes` said that there is room."""
        if self.takes(len(sample.body)):
            self._schedule.add(sample)
            self._wake.set()

    def broke(self, sample: Sample) -> None:
        """Judge a sample whose logprobs were no numbers; no baseline is needed for that."""
        self._take(Check(sample, "score", BROKEN, None, None, 0.0))

    def skip(self, route: Route) -> None:
        """Count a sampled request whose answer cannot be compared."""
        self._count(route, "unscorable")

    @property
    def asked_tops(self) -> int:
        """One more than are compared: the chosen token is listed too, wherever it stands."""
        top = self.budget.top_logprobs
        return top + 1 if top and self.budget.method == "score" else 0

    def ask_no_tops(self, refused_by: str, count: int) -> None:
        if not self.budget.top_logprobs:
            return  # others were under way when the first was refused
        log.warning(
            "entropies are compared no more: %s refuses %d logprobs; raise its --max-logprobs, or lower"
            " --shadow-top-logprobs", refused_by, count,
        )  # fmt: skip
        self.budget = msgspec.structs.replace(self.budget, top_logprobs=0)

    # What an operator calls

    def calibrate(self, count: int) -> dict[str, int]:
        """Have `count` more noise samples taken for every key that samples are known of; what was ordered, by key."""
        ordered = self._schedule.calibrate(count)
        self._wake.set()
        return ordered

    @property
    def waiting(self) -> int:
        return self._schedule.waiting

    @property
    def parked(self) -> int:
        """Samples that wait for a noise floor."""
        return self._judge.parked

    @property
    def calibrating(self) -> Mapping[str, int]:
        return self._schedule.calibrating

    # Working

    def work(self) -> list[Coroutine[None, None, None]]:
        """What is to run, each until cancelled."""
        return [self._remind(), *(self._work(number) for number in range(self.budget.concurrency))]

    async def _remind(self) -> None:
        """Noise that was put off becomes due without anything happening."""
        while True:
            await asyncio.sleep(NOISE_PAUSE_S)
            self._wake.set()

    async def _work(self, number: int) -> None:
        turn = 0
        while True:
            turn += 1
            suspicious = self.verdicts.wanted_noise()
            job = self._schedule.take(
                number, turn, now=self._clock(), suspicious=suspicious[0] if suspicious is not None else None
            )
            if job is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self.checking += 1
            try:
                await (self._measure_noise(job) if isinstance(job, NoiseRequest) else self._check(job))
            except BaselineError as error:
                self._failed(job, error)
            except Exception:
                log.exception("a shadow check failed")
                if isinstance(job, Sample):
                    self._count(job.route, "error")
            finally:
                self.checking -= 1
            self._wake.set()
            await asyncio.sleep(0)  # a check that fails at once must not keep the loop to itself

    async def _measure_noise(self, noise: NoiseRequest) -> None:
        answer = await self._baselines.generate(noise.path, noise.kind, noise.body)
        if answer.prompt_token_ids is None:
            raise BaselineError("bad_answer", "an answer without its prompt's token ids")
        positions = await self._baselines.score(noise.key.model, answer.prompt_token_ids, answer.token_ids)
        await self.learn(noise.key, summarize(scores_of(answer.logprobs, positions)))

    async def learn(self, key: NoiseKey, statistics: Statistics) -> None:
        """A healthy sample, wherever it was measured; what waited for the noise floor is judged once that stands."""
        noise = self.verdicts.noise
        self._telemetry.noise(statistics.max_delta)
        async with self._learning:
            samples = noise.due(key, statistics)
            # Of 10,000 samples it takes a tenth of a second, which would keep the loop from clients.
            made = await asyncio.to_thread(reference_of, samples) if samples is not None else None
            is_new = self.verdicts.add_noise(key, statistics, made)
        if is_new:
            is_known = noise.reference(key) is not None
            count = noise.count(key)
            what = "made" if is_known else "dropped, since the noise has changed: made anew"
            log.info("noise floor of %s %s samples=%d", key.label, what, count)
            if is_known:
                await self._release(key)
        self.on_judged()

    async def _release(self, key: NoiseKey) -> None:
        """Judge what waited for this noise floor, without keeping the loop from clients."""
        for check in self._judge.released(key):
            self._conclude(check, key)
            await asyncio.sleep(0)

    async def _check(self, sample: Sample) -> None:
        started_at = self._clock()
        method = method_of(sample, self.budget.method)
        difference = spread = None
        scores: Scores | None
        if method == "score":
            candidate = sample.candidate
            positions, top = await self._score(sample.model, candidate, self.budget.top_logprobs)
            scores = scores_of(candidate.logprobs, positions)
            spread = await asyncio.to_thread(spread_of_both, candidate, positions, top) if top else None
        elif method == "replay":
            other = await self._baselines.generate(sample.path, sample.kind, replay_body(sample.kind, sample.fields))
            difference = difference_of(sample.candidate, other)
            scores = scores_of_replay(sample.candidate, other, difference)
        else:
            raise BaselineError("unscorable", "neither scorable nor greedy nor seeded")
        if scores is None:
            raise BaselineError("unscorable", "two answers without a token in common")
        took_ms = (self._clock() - started_at) * 1000
        self.took_ms[method] = self.took_ms.get(method, 0.0) + took_ms
        self.checks[method] += 1
        self._take(Check(sample, method, summarize(scores), scores, difference, took_ms, spread))

    async def _score(self, model: str, candidate: Candidate, top: int) -> tuple[list[Position], int]:
        """How the baseline sees it, and of how many of the likeliest tokens."""
        prompt, answer = candidate.prompt_token_ids or (), candidate.token_ids
        try:
            return await self._baselines.score(model, prompt, answer, top=top), top
        except BaselineError as error:
            if not top or error.reason not in ("too_many_logprobs", "too_large"):
                raise
            if error.reason == "too_many_logprobs":
                self.ask_no_tops("a baseline", top + 1)
        return await self._baselines.score(model, prompt, answer), 0

    def _take(self, check: Check) -> None:
        """A finished check: a seed of noise, and judged as soon as there is a noise floor for it."""
        sample = check.sample
        key = noise_key(sample)
        if sample.is_scorable:
            self._schedule.checked(key, sample, 1.0 if self.verdicts.noise.missing(key) else self.budget.noise_share)
        if self._judge.has_floor(key):
            self._conclude(check, key)
        elif self._judge.park(check, key):
            self.drop("no_noise_floor")

    def _conclude(self, check: Check, key: NoiseKey) -> None:
        judged = self._judge.judge(check, key, self.red_in_use(), self._clock())
        if judged is None:
            self.drop("no_noise_floor")
            return
        sample, judgement = check.sample, judged.judgement
        if judgement.category != "within":
            self._schedule.doubt(key, sample)
        self._count(sample.route, judgement.outcome)
        self._telemetry.judged(sample.route, **judged.figures)
        if judgement.category == "far":
            log.warning(
                "shadow %s id=%s route=%s pair=%s delta=%.3f margin=%.3f at=%d tokens=%d",
                judgement.outcome, sample.id, sample.route, sample.pair, check.statistics.max_delta,
                check.statistics.margin, check.statistics.max_delta_at, check.statistics.tokens,
            )  # fmt: skip
        if self.ledger is not None:
            self.ledger.add(judged.row)
        self.on_judged()

    def _failed(self, job: Job, error: BaselineError) -> None:
        log.info("shadow check failed reason=%s: %s", error.reason, error)
        if isinstance(job, NoiseRequest):
            self._schedule.noise_failed(job, self._clock())
        elif says_nothing(error.reason):
            self.drop(error.reason)
        else:
            self._count(job.route, "unscorable")

    def _count(self, route: Route, outcome: str) -> None:
        self.outcomes[route, outcome] += 1
        self._telemetry.sampled(route, outcome)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1
        self._telemetry.dropped(reason)
