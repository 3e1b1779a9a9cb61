"""When a scope is green, amber, red or unknown. The long simulations are in benchmarks/verdict_days.py."""

import pickle
from dataclasses import replace
from functools import cache

import numpy as np
from tests.unit.accuracy.healthy import KEY, Source

from ppd_accuracy.verdicts.noise import BaselineNoise
from ppd_accuracy.verdicts.verdicts import Tolerances, Verdicts

SCOPES = ("route:pd", "pair:p>d")


@cache
def calibrated(floor_samples: int) -> tuple[Source, Verdicts]:
    """A source, and verdicts whose floor is of its first samples."""
    source, verdicts = Source(5), Verdicts(BaselineNoise(least=300, capacity=5000), Tolerances())
    for _ in range(floor_samples):
        verdicts.add_noise(KEY, source.sample())
    return source, verdicts


class Watch:
    """Verdicts with a floor, and a source of samples. `noise_scale` is what fresh noise is like."""

    def __init__(self, floor_samples: int = 1000) -> None:
        self.source, self.verdicts = pickle.loads(pickle.dumps(calibrated(floor_samples)))  # of this test alone
        self.noise_scale = 1.0
        self.count = 0

    def play(
        self,
        count: int,
        *,
        share: float = 0.0,
        scale: float = 30.0,
        base: float = 1.0,
        scopes: tuple[str, ...] = SCOPES,
    ) -> None:
        """Live samples, a share of them faulty; wanted noise is taken at once."""
        for _ in range(count):
            self.count += 1
            sample = self.source.sample(scale if self.source.chance() < share else base)
            self.verdicts.add(KEY, sample, prompt_tokens=300, scopes=scopes, now=self.count * 170.0)
            while (wanted := self.verdicts.wanted_noise()) is not None:
                self.verdicts.add_noise(wanted[0], self.source.sample(self.noise_scale))

    def is_now(self, scope: str) -> str:
        return self.verdicts.verdicts()[scope]


def test_nothing_is_judged_without_a_noise_floor() -> None:
    watch = Watch(floor_samples=299)
    watch.play(100, share=1.0)
    assert watch.is_now("all") == "unknown"
    assert watch.verdicts.window("all") == ()


def test_healthy_answers_turn_green() -> None:
    watch = Watch()
    watch.play(20)
    assert watch.is_now("route:pd") == "unknown"
    watch.play(280)
    assert set(watch.verdicts.verdicts().values()) == {"green"}


def test_faults_in_some_answers_turn_their_scopes_red_and_no_others() -> None:
    watch = Watch()
    for _ in range(60):
        watch.play(5, share=0.1)
        watch.play(5, scopes=("route:direct", "pair:q>d"))
    assert watch.is_now("pair:p>d") == "red"
    assert watch.is_now("route:pd") == "red"
    assert watch.is_now("pair:q>d") == "green"
    assert watch.is_now("route:direct") == "green"


def test_faults_of_one_route_do_not_drown_among_the_other_turns_of_a_pair() -> None:
    """Most turns are direct: faults in a twentieth of the pd turns are a hundredth of the pair's samples."""
    watch = Watch(floor_samples=3000)
    for number in range(80):
        watch.play(5, share=0.2 if number % 4 == 0 else 0.0)
        watch.play(20, scopes=("route:direct", "pair:p>d"))
    assert watch.is_now("pair:p>d") == "red"
    assert watch.is_now("route:direct") == "green"


def test_healthy_answers_unlike_those_of_the_floor_are_amber_and_never_red() -> None:
    watch, random = Watch(floor_samples=3000), np.random.default_rng(4)
    reference = watch.verdicts.noise.reference(KEY)
    assert reference is not None
    seen = set()
    for number in range(2000):
        sample = watch.source.sample()
        if random.random() < 0.1:
            sample = replace(sample, mean_delta=1.03 * reference.shown["mean_delta"])
        watch.verdicts.add(KEY, sample, prompt_tokens=300, scopes=("route:direct",), now=float(number))
        while (wanted := watch.verdicts.wanted_noise()) is not None:
            watch.verdicts.add_noise(wanted[0], watch.source.sample())
        seen.add(watch.is_now("route:direct"))
    assert "red" not in seen
    report = watch.verdicts.report("route:direct")
    assert report is not None
    assert (report.verdict, report.evidence < 1) == ("amber", True)
    assert "drift" in report.reason


def test_a_red_scope_is_cleared_by_its_far_answers_not_by_its_near_ones() -> None:
    watch, random = Watch(floor_samples=3000), np.random.default_rng(4)
    reference = watch.verdicts.noise.reference(KEY)
    assert reference is not None
    watch.play(200, share=0.2)
    assert watch.is_now("route:pd") == "red"
    for number in range(600):
        sample = watch.source.sample()
        if random.random() < 0.1:
            sample = replace(sample, mean_delta=1.03 * reference.shown["mean_delta"])
        watch.verdicts.add(KEY, sample, prompt_tokens=300, scopes=SCOPES, now=1e5 + number)
    assert watch.is_now("route:pd") != "red"


def test_a_scope_that_one_route_turned_red_is_not_cleared_by_the_other() -> None:
    watch = Watch(floor_samples=3000)
    watch.play(200, share=0.2)
    assert watch.is_now("pair:p>d") == "red"
    watch.play(600, scopes=("route:direct", "pair:p>d"))
    assert watch.is_now("pair:p>d") == "red"
    watch.play(400)
    assert watch.is_now("pair:p>d") == "green"


def test_a_red_scope_shows_what_turned_it_red() -> None:
    watch = Watch()
    watch.play(300, share=0.3)
    assert sum(judged.category == "far" for judged in watch.verdicts.window("route:pd")) >= 3


def test_red_stays_until_later_samples_are_green() -> None:
    watch = Watch()
    watch.play(300, share=0.3)
    assert watch.is_now("route:pd") == "red"
    watch.play(30)
    assert watch.is_now("route:pd") == "red"
    watch.play(800)
    assert watch.is_now("route:pd") == "green"


def test_noise_that_changes_everywhere_ends_in_recalibration() -> None:
    watch = Watch()
    watch.play(200)
    watch.noise_scale = 2.0
    watch.play(200, base=2.0)
    assert watch.verdicts.recalibrations >= 1
    assert "red" not in watch.verdicts.verdicts().values()
    assert watch.is_now("all") == "unknown"


def test_before_red_the_noise_is_measured_again() -> None:
    watch = Watch()
    for _ in range(40):
        watch.verdicts.add(KEY, watch.source.sample(30), prompt_tokens=300, scopes=SCOPES, now=1e6)
    assert watch.is_now("route:pd") == "amber"
    key, missing = watch.verdicts.wanted_noise() or (None, 0)
    assert (key, missing) == (KEY, 50)
    for _ in range(missing):
        watch.verdicts.add_noise(KEY, watch.source.sample())
    assert watch.is_now("route:pd") == "red"


def test_an_alarm_from_elsewhere_makes_a_scope_amber_while_it_lasts() -> None:
    watch = Watch()
    watch.play(300)
    watch.verdicts.raise_alarm("route:pd", "speculative decoding accepts less")
    assert watch.is_now("route:pd") == "amber"
    watch.verdicts.raise_alarm("route:pd", None)
    assert watch.is_now("route:pd") == "green"


def test_a_reset_forgets_the_verdict_and_keeps_the_floor() -> None:
    watch = Watch()
    watch.play(300, share=0.3)
    watch.verdicts.reset()
    assert set(watch.verdicts.verdicts().values()) == {"unknown"}
    assert watch.verdicts.noise.reference(KEY) is not None


def test_a_report_says_what_is_needed_for_certainty() -> None:
    watch = Watch()
    watch.play(30)
    report = next(each for each in watch.verdicts.reports() if each.scope == "route:pd")
    assert report.verdict == "unknown"
    assert report.samples == 30
    assert 0 < report.more_samples < 300
    watch.play(report.more_samples)
    assert watch.is_now("route:pd") == "green"


def test_the_same_prompt_again_and_again_is_evidence_once() -> None:
    watch = Watch()
    reference = watch.verdicts.noise.reference(KEY)
    unlucky = next(
        sample
        for sample in (watch.source.sample(3.0) for _ in range(1000))
        if reference.judge(sample, is_greedy=True).category == "far"
    )
    for number in range(300):
        watch.verdicts.add(KEY, unlucky, prompt_tokens=9, scopes=SCOPES, now=number * 170.0, identity=b"probe")
    assert len(watch.verdicts.window("route:pd")) == 1
    assert watch.is_now("route:pd") == "unknown"
    watch.verdicts.reset()
    watch.verdicts.add(KEY, unlucky, prompt_tokens=9, scopes=SCOPES, now=1e6, identity=b"probe")
    assert len(watch.verdicts.window("route:pd")) == 1, "a reset forgets what was seen, too"


def test_a_pair_that_is_gone_is_forgotten() -> None:
    watch = Watch()
    watch.play(300, share=0.3)
    before = watch.verdicts.threshold
    for number in range(10):
        watch.verdicts.add(KEY, watch.source.sample(), prompt_tokens=9, scopes=(f"pair:{number}>d",), now=0.0)
    assert watch.verdicts.threshold > before
    for number in range(10):
        watch.verdicts.forget(f"pair:{number}>d")
    watch.verdicts.forget("pair:p>d")
    assert "pair:p>d" not in watch.verdicts.verdicts()
    assert watch.verdicts.threshold <= before
