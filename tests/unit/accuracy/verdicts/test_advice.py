"""Where to look, computed from what the bad samples have in common."""

from collections.abc import Mapping

import pytest
from tests.unit.accuracy.healthy import KEY

from ppd_accuracy.verdicts.advice import advise
from ppd_accuracy.verdicts.scope import Judged
from ppd_accuracy.verdicts.verdicts import Verdict

RED_PD: Mapping[str, Verdict] = {"route:pd": "red", "route:direct": "green"}
RED_DIRECT: Mapping[str, Verdict] = {"route:pd": "green", "route:direct": "red"}
RED_BOTH: Mapping[str, Verdict] = {"route:pd": "red", "route:direct": "red"}


def window(bad: list[int], good: list[int], *, is_drift: bool = False) -> list[Judged]:
    outcome = "drift" if is_drift else "diverged"
    return [
        *(Judged(KEY, "far", outcome, tokens, is_drift) for tokens in bad),
        *(Judged(KEY, "within", "exact", tokens, True) for tokens in good),
    ]


EVEN = window([100, 200, 300, 400, 500], [100, 200, 300, 400, 500] * 4)


@pytest.mark.parametrize(
    ("samples", "verdicts", "kv_failures", "word"),
    [
        (EVEN, RED_PD, 3, "transfers fail"),
        (window([900, 950, 980, 990, 999], list(range(10, 800, 10))), RED_PD, 0, "grows with the prompt"),
        (window([100, 200, 300, 400, 500], [100, 200, 300, 400, 500] * 4, is_drift=True), RED_PD, 0, "precision"),
        (EVEN, RED_PD, 0, "only handed-over"),
        (EVEN, RED_DIRECT, 0, "prefix cache"),
        (EVEN, RED_BOTH, 0, "sampling"),
        (EVEN, {}, 0, "check-kv"),
    ],
)
def test_the_advice_follows_the_evidence(
    samples: list[Judged], verdicts: Mapping[str, Verdict], kv_failures: int, word: str
) -> None:
    assert word in (advise(samples, verdicts, kv_failures) or "")


@pytest.mark.parametrize(
    ("changed", "usual", "told"),
    [
        ([0.21, 0.19, 0.2, 0.22, 0.18], [0.0, 0.01, -0.01] * 7, "other logprobs (entropy +0.2 nats a token):"),
        ([-0.21, -0.19, -0.2, -0.22, -0.18], [0.0, 0.01, -0.01] * 7, "other logprobs (entropy -0.2 nats a token):"),
        ([0.0, 0.01, -0.01, 0.0, 0.01], [0.0, 0.01, -0.01] * 7, "other logprobs:"),
        ([0.21, 0.19, 0.2, 0.22, None], [0.0, 0.01, -0.01] * 7, "other logprobs:"),
        ([0.21, 0.19, 0.2, 0.22, 0.18], [0.0], "other logprobs:"),
    ],
)
def test_lost_precision_tells_the_entropy_where_it_changed_for_sure(
    changed: list[float | None], usual: list[float], told: str
) -> None:
    samples = [
        *(Judged(KEY, "far", "drift", 100, True, each) for each in changed),
        *(Judged(KEY, "within", "exact", 100, True, each) for each in usual),
    ]
    assert told in (advise(samples, RED_PD, 0) or "")


def test_near_answers_do_not_hide_what_the_far_ones_have_in_common() -> None:
    samples = [
        *(Judged(KEY, "near", "drift", 4000, True) for _ in range(50)),
        *(Judged(KEY, "far", "diverged", tokens, False) for tokens in (100, 200, 300, 400, 500)),
        *(Judged(KEY, "within", "exact", tokens, True) for tokens in (100, 200, 300, 400, 500) * 10),
    ]
    assert "only handed-over" in (advise(samples, RED_PD, 0) or "")


def test_a_handful_of_bad_samples_is_too_little_for_advice() -> None:
    assert advise(window([1, 2, 3, 4], [1] * 50), RED_PD, 0) is None
