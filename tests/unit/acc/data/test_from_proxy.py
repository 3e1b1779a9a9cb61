"""What one row of a proxy's journal says as a sample of a report."""

import msgspec
import pytest

from ppd_acc.data.from_proxy import UNKNOWN_TOKEN, JournalRow, noise_of, sample_of

SCORED = {
    "sample_id": "r1", "at": 5.0, "model": "m", "route": "pd", "pair": "p>d", "turn": 2, "method": "score",
    "outcome": "exact", "prompt_tokens": 3, "answer_tokens": 4, "token_ids": [7, 8, 9, 10],
    "candidate_logprobs": [-0.5, -0.25, -1.0, -2.0], "baseline_logprobs": [-0.5, -0.5, -1.0, -5.0],
    "ranks": [1, 1, 1, 1], "margins": [0.0, 0.0, 0.0, 0.0], "max_delta": 3.0, "mean_delta": 0.8125,
    "finish_reason": "length",
}  # fmt: skip
REPLAYED = {
    **SCORED, "method": "replay", "outcome": "diverged",
    "baseline_logprobs": [-0.5, -0.5], "ranks": [1, 2], "margins": [0.0, 1.5],
    "replay": {
        "prefix_tokens": 1, "token_accuracy": 0.25, "first_difference": 1, "length_delta": -2, "is_censored": True,
        "has_same_finish": True, "has_same_tools": True,
    },
}  # fmt: skip


def told(fields, **more):
    return sample_of(msgspec.convert({**fields, **more}, JournalRow))


def test_a_scored_answer_has_the_baselines_logprobs_of_every_token():
    sample = told(SCORED)
    assert (sample.status, sample.flip, sample.compared_tokens) == ("equal", None, 4)
    assert sample.baseline.tokens == sample.target.tokens == [7, 8, 9, 10]
    assert sample.baseline.logprobs == [-0.5, -0.5, -1.0, -5.0]
    assert sample.forced is not None
    assert (sample.forced.max_delta, sample.forced.max_delta_at) == (3.0, 3)
    assert sample.forced.mean_delta == pytest.approx(0.8125)
    assert sample.forced.likelihood_delta == pytest.approx(3.25)
    assert sample.tags == ["exact", "pd", "p>d"]


def test_the_first_token_that_is_not_the_best_is_the_difference_and_its_margin_a_bound():
    sample = told(SCORED, outcome="diverged", ranks=[1, 1, 3, 2], margins=[0.0, 0.0, 1.25, 0.5])
    assert sample.status == "real"
    assert sample.flip is not None
    assert (sample.flip.position, sample.flip.target_token, sample.flip.baseline_token) == (2, 9, None)
    assert (sample.flip.shift, sample.flip.is_bound) == (1.25, True)
    assert sample.forced is not None
    assert sample.forced.token_accuracy == 0.5


@pytest.mark.parametrize(("temperature", "has_flip"), [("0", True), ("0.7", False), (None, False)])
def test_of_a_sampled_answer_no_token_is_a_difference(temperature, has_flip):
    field = "" if temperature is None else f', "temperature": {temperature}'
    body = '{"prompt": "why?"' + field + "}"
    sample = told(SCORED, outcome="diverged", ranks=[1, 2, 1, 1], margins=[0.0, 1.0, 0.0, 0.0], body=body)
    assert sample.prompt == "why?"
    assert (sample.flip is not None) is has_flip
    assert sample.status == "real"


def test_drift_is_equal_tokens_and_tagged():
    sample = told(SCORED, outcome="drift")
    assert (sample.status, sample.tags[0]) == ("equal", "drift")
    assert told(SCORED, outcome="drift", ranks=[1, 1, 2, 1]).status == "tie"


@pytest.mark.parametrize("outcome", ["unscorable", "error"])
def test_what_was_not_compared_is_an_error_with_a_reason(outcome):
    sample = told(SCORED, outcome=outcome, error=None)
    assert (sample.status, sample.error_reason) == ("error", outcome)
    assert sample.error


def test_an_outcome_of_a_newer_proxy_is_unclassified():
    assert told(SCORED, outcome="novel").status == "unclassified"


def test_a_nan_is_counted_and_never_a_figure():
    sample = told(SCORED, candidate_logprobs=[None, -0.25, -1.0, -2.0], outcome="diverged", max_delta=None)
    assert sample.not_numbers == 1
    assert sample.forced is not None
    assert (sample.forced.not_numbers, sample.forced.max_delta) == (1, 3.0)
    nothing = told(SCORED, candidate_logprobs=[None] * 4)
    assert nothing.forced is None
    assert nothing.max_delta_at is None


def test_a_replay_tells_the_length_of_both_answers():
    sample = told(REPLAYED)
    assert sample.flip is not None
    assert (sample.flip.position, sample.flip.baseline_margin, sample.compared_tokens) == (1, 1.5, 1)
    assert sample.baseline.tokens == [7, *[UNKNOWN_TOKEN] * 5]
    assert (sample.baseline.finish_reason, sample.target.finish_reason) == ("length", "length")
    assert sample.forced is None


def test_without_token_ids_lengths_are_still_right():
    sample = told(SCORED, token_ids=None, candidate_logprobs=None, baseline_logprobs=None, ranks=None, margins=None)
    assert (len(sample.target.tokens), sample.target.logprobs, sample.baseline.tokens) == (4, [], [])


@pytest.mark.parametrize("body", [None, "", "no JSON", "[1]", '{"messages": [{"role": "user", "content": "x"}]}'])
def test_any_body_is_read_as_far_as_it_goes(body):
    sample = told(SCORED, body=body)
    assert (sample.messages is not None) is (body is not None and "messages" in body)


def test_the_noise_floor_is_over_all_kinds_of_requests():
    noise = noise_of(
        [
            {"figures": [[12, 0.01, [0.05, 0.02], [0.5]], [8, 0.02, [0.03], []]]},
            {"figures": [[4, 0.01, [0.5], [0.25]]]},
            {},
        ]
    )
    assert (noise.answers, noise.tokens, noise.largest_delta, noise.largest_shift) == (3, 24, 0.5, 0.5)
    assert noise_of([]).largest_shift is None


@pytest.mark.parametrize("outcome", ["exact", "drift"])
def test_the_same_tokens_that_were_read_as_other_tool_calls_are_real(outcome):
    replay = {**REPLAYED["replay"], "first_difference": None, "has_same_tools": False}
    sample = told(REPLAYED, outcome=outcome, replay=replay)
    assert (sample.status, [each.part for each in sample.differences]) == ("real", ["tool_calls"])
    assert told(REPLAYED, outcome="exact", replay={**replay, "has_same_tools": True}).status == "equal"
