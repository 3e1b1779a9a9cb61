"""An answer that ends before the other one: lost and cut ones are faults, others nobody can tell."""

import pytest

from ppd_acc.ask.answers import Answer
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare_answers
from ppd_accuracy.answers.flips import ReplayNoise, measure, replay_noise_of

WHOLE = (5, 6, 7, 8)
FLOOR = replay_noise_of([measure([0.05] * 100, [0.01])] * 10)


def answer(tokens, finish="length", **fields):
    names = " ".join(map(str, tokens))
    return Answer(**({"text": names, "tokens": [*tokens], "unit": "tokens", "finish_reason": finish} | fields))


def judged(one, other, *, is_greedy=True, floor=FLOOR):
    return compare_answers("s", Question(), one, other, floor, is_greedy=is_greedy)


@pytest.mark.parametrize("floor", [FLOOR, ReplayNoise()], ids=["measured", "none"])
@pytest.mark.parametrize("whole", [WHOLE, ("a", "b", "c", "d")], ids=["ids", "names"])
@pytest.mark.parametrize(
    ("count", "finish", "status", "tags"),
    [
        (0, "stop", "real", ["empty"]),
        (0, "length", "real", ["empty"]),
        (0, None, "real", ["empty"]),
        (2, "length", "real", ["cut-short"]),
        (2, "stop", "unclassified", []),
        (2, None, "unclassified", []),
    ],
)
def test_a_shorter_answer_is_real_where_it_is_empty_or_cut(count, finish, status, tags, whole, floor):
    short, long = answer(whole[:count], finish), answer(whole)
    for one, other in ((long, short), (short, long)):
        sample = judged(one, other, floor=floor)
        assert (sample.status, sample.tags) == (status, tags)
        assert sample.first_divergence == count


def test_an_empty_answer_of_an_engine_that_names_tokens_is_real():
    """It lists no names then, so its unit is words."""
    sample = judged(answer(("a", "b")), answer((), text="", unit="words"))
    assert (sample.status, sample.tags) == ("real", ["empty"])


def test_an_answer_that_is_all_reasoning_is_not_called_empty():
    sample = judged(answer(("a", "b")), answer((), text="", unit="words", reasoning="because"))
    assert (sample.status, sample.tags) == ("unclassified", [])


def test_a_sampled_answer_may_end_anywhere():
    for count in (0, 2):
        assert judged(answer(WHOLE), answer(WHOLE[:count]), is_greedy=False).status == "unclassified"


def test_a_cut_answer_that_parts_before_its_end_is_judged_by_its_margins():
    sample = judged(answer(WHOLE), answer((5, 9)))
    assert (sample.status, sample.tags) == ("unclassified", [])


@pytest.mark.parametrize("is_baselines", [True, False])
def test_a_tool_call_that_only_one_side_reads_from_the_same_tokens_is_real(is_baselines):
    call = {"function": {"name": "weather", "arguments": "{}"}}
    with_call, without = answer(WHOLE, tool_calls=[call]), answer(WHOLE)
    assert judged(*((with_call, without) if is_baselines else (without, with_call))).status == "real"
    assert judged(with_call, with_call).status == judged(without, without).status == "equal"
