"""Several comparisons judged together: differences win over failures, failures over what could not be judged."""

import math

import pytest

from ppd_acc.compare.pools import deltas_of, judge_together
from ppd_acc.data.report import Flip, Sample, Side
from ppd_acc.outcome import Exit
from ppd_accuracy.answers.flips import measure, replay_noise_of
from ppd_accuracy.statistics.intervals import difference, wilson

FLOOR = replay_noise_of(
    measure([0.01 * step for step in range(first, 201, 4)], [0.001 * step for step in range(first, 201, 4)])
    for first in range(1, 5)
)
NONE = replay_noise_of([])


def sample(status="equal", delta=0.05, tokens=8, **facts):
    """Equal up to its end, or to its flip, with this difference of logprobs everywhere."""
    sides = [Side(tokens=list(range(tokens)), logprobs=[-1.0 + shift] * tokens) for shift in (0.0, delta)]
    flip = Flip(position=tokens) if status in ("tie", "real", "unclassified") else None
    return Sample(
        sample_id="0", status=status, baseline=sides[0], target=sides[1], compared_tokens=tokens, flip=flip, **facts
    )  # fmt: skip


def ends(*samples, floor=FLOOR, **more):
    return judge_together(samples, floor, alpha=0.01, **more).exit


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        ([sample()], Exit.PASS),
        ([sample(), sample("tie")], Exit.PASS),
        ([sample(), sample("real")], Exit.DIFFERENT),
        ([sample(delta=0.3)], Exit.DIFFERENT),
        ([sample(), sample("unclassified")], Exit.INCONCLUSIVE),
        ([sample(), sample("error", tokens=0, error="gone")], Exit.INFRASTRUCTURE),
        ([sample("unclassified"), sample("error", tokens=0, error="gone")], Exit.INFRASTRUCTURE),
        ([sample("real"), sample("error", tokens=0, error="gone")], Exit.DIFFERENT),
        ([sample(not_numbers=1)], Exit.DIFFERENT),
        ([sample("unclassified", not_numbers=1, tags=["baseline-not-a-number"])], Exit.INCONCLUSIVE),
        ([sample(tokens=0)], Exit.INCONCLUSIVE),
        ([], Exit.INCONCLUSIVE),
    ],
)
def test_the_worst_that_is_known_decides(samples, code):
    assert ends(*samples) == code


def test_without_a_floor_only_what_is_equal_bit_for_bit_passes():
    assert ends(sample(delta=0.0), floor=NONE) == Exit.PASS
    assert ends(sample(delta=1e-6), floor=NONE) == Exit.INCONCLUSIVE


def test_a_floor_with_numbers_that_are_none_judges_nothing():
    broken = replay_noise_of([measure([0.1, math.nan], [0.1])])
    assert ends(sample(delta=1e-6), floor=broken) == Exit.INCONCLUSIVE


def test_a_nan_among_further_differences_never_passes():
    assert ends(sample(), more_deltas=[[0.01, math.nan]]) == Exit.DIFFERENT


def test_too_few_tokens_are_no_pass():
    floor = replay_noise_of([measure([0.1], [0.1] * 3), measure([0.1], [0.1] * 2)])
    assert ends(sample(tokens=1), floor=floor) == Exit.INCONCLUSIVE


def test_shares_have_wilsons_interval_and_newcombes_above_the_replays():
    verdict = judge_together([sample("tie"), sample(), sample()], FLOOR, alpha=0.01)
    assert (verdict.divergent, verdict.compared) == (1, 3)
    assert verdict.interval == wilson(1, 3, 0.95)
    assert verdict.above_floor == difference(1, 3, 0, 4, 0.95)


def test_words_have_no_logprobs_to_compare():
    assert deltas_of(sample(unit="words")) == []


def test_a_baseline_that_gives_no_numbers_is_named():
    verdict = judge_together(
        [sample(), sample("unclassified", not_numbers=1, tags=["baseline-not-a-number"])], FLOOR, alpha=0.01
    )
    assert "1 answer cannot be judged: the baseline itself" in verdict.reasons[0]
