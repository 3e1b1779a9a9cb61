"""The row of one token: margins, ranks and divergence, worked by hand; nothing behind a difference is compared."""

import math

import pytest

from ppd_acc.ask.answers import Answer
from ppd_acc.compare.positions import rows_of
from ppd_wire.answers.scored import Position


def answer(*tops):
    """Each top's first token is the one that was taken."""
    tokens = [next(iter(top)) for top in tops]
    return Answer(
        text="", tokens=tokens, unit="tokens", logprobs=[top[token] for token, top in zip(tokens, tops, strict=True)],
        tops=[{str(token): number for token, number in top.items()} for top in tops],
    )  # fmt: skip


def test_a_common_token_is_compared():
    one, other = answer({5: -0.5, 6: -1.5, 7: -3.0}), answer({5: -0.7, 6: -1.2, 8: -3.5})
    (row,) = rows_of(one, other, 1, [Position(-0.55, 2, 0.1, {})])
    assert row.delta == pytest.approx(-0.2)
    assert (row.baseline_margin, row.target_margin) == (pytest.approx(1.0), pytest.approx(0.5))
    assert (row.baseline_rank, row.target_rank) == (1, 1)
    assert (row.forced_delta, row.forced_rank, row.forced_margin) == (pytest.approx(-0.15), 2, 0.1)
    p, q = (math.exp(-0.5), math.exp(-1.5)), (math.exp(-0.7), math.exp(-1.2))
    rest = (1 - sum(p)) * math.log((1 - sum(p)) / (1 - sum(q)))
    assert row.divergence == pytest.approx(p[0] * 0.2 + p[1] * -0.3 + rest)


def test_a_token_that_is_not_the_best_has_a_negative_margin_and_its_rank():
    (row,) = rows_of(answer({5: -2.0, 6: -0.5, 7: -1.0}), answer({5: -2.0}), 1)
    assert (row.baseline_margin, row.baseline_rank) == (pytest.approx(-1.5), 3)
    assert (row.target_margin, row.target_rank) == (None, 1)


def test_behind_the_first_difference_nothing_is_compared_by_position():
    rows = rows_of(answer({5: -0.5}, {6: -0.5}, {7: -0.5}), answer({5: -0.5}, {9: -0.5}), 1)
    assert [row.is_common for row in rows] == [True, False, False]
    assert [(row.delta, row.divergence) for row in rows[1:]] == [(None, None)] * 2
    assert (rows[2].baseline_token, rows[2].target_token, rows[2].target_logprob) == (7, None, None)


def test_what_an_engine_rules_out_is_an_infinite_divergence():
    (row,) = rows_of(answer({5: -0.7, 6: -1.2}), answer({5: 0.0, 6: -9999.0}), 1)
    assert row.divergence == math.inf


def test_what_an_engine_does_not_list_is_as_unlikely_as_rounding_can_tell():
    (row,) = rows_of(answer({5: -0.7, 6: -1.2}), answer({5: 0.0}), 1)
    assert row.divergence == pytest.approx(6.26, abs=0.01)
