"""The two legs' prompt counts of one request, and what a difference means."""

import pytest
from tests.support.builders import direct_plan, pd_plan
from tests.support.parts import Parts

from ppd_wire.answers.answer import EngineAnswer, Usage
from ppd_wire.dialects.dialects import HandedOver
from ppd_wire.errors import Failure


def answer(tokens):
    return EngineAnswer(usage=Usage(prompt_tokens=tokens))


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def ongoing(parts):
    """Its prefill leg counted 7 tokens, and its decode leg is open."""
    ongoing = parts.read({"messages": [{"role": "user", "content": "hi"}]})
    ongoing.handed = HandedOver(None, 7)
    parts.watch.begin(ongoing)
    return ongoing


def test_equal_counts_are_noted_as_agreement(parts, ongoing):
    assert parts.watch.compare(ongoing.check, answer(7)) is None
    parts.watch.complete(ongoing, pd_plan(), answer(7))
    assert parts.observer.of("prompts_compared") == [["same"]]
    assert parts.control.prompts.differences(("p1:8000", "d1:8000")) == (0, 1)
    assert ongoing.check is None


def test_a_stream_that_told_its_count_at_the_end_is_compared_then(parts, ongoing):
    parts.watch.complete(ongoing, pd_plan(), answer(7))
    assert parts.observer.of("prompts_compared") == [["same"]]


def test_another_count_is_a_failed_leg_a_new_salt_and_a_doubt(parts, ongoing):
    failure = parts.watch.compare(ongoing.check, answer(8))
    assert (failure.error.reason, failure.is_our_doing) == (Failure.ENGINE_ERROR, False)
    assert "counts 7 tokens, the decode engine 8" in failure.error.message
    parts.watch.failed(ongoing, pd_plan())
    assert ongoing.doubted == {"p1:8000", "d1:8000"}
    assert parts.control.distrust.salt(direct_plan())
    [[pair, why, is_distrusted]] = parts.observer.of("prompts_differ")
    assert (pair, why, is_distrusted) == (("p1:8000", "d1:8000"), failure.error.message, False)


def test_a_leg_that_failed_for_another_cause_raises_no_doubt(parts, ongoing):
    parts.watch.failed(ongoing, pd_plan())
    assert not ongoing.doubted
    assert parts.observer.told == []


def test_an_engine_that_tells_no_count_is_at_no_fault(parts, ongoing):
    assert parts.watch.compare(ongoing.check, None) is None
    parts.watch.complete(ongoing, pd_plan(), None)
    assert parts.observer.of("prompts_compared") == [["unknown"]]
    assert parts.control.prompts.differences(("p1:8000", "d1:8000")) == (0, 0)


def test_without_a_prefill_leg_there_is_nothing_to_compare(parts):
    ongoing = parts.read({"messages": [{"role": "user", "content": "hi"}]})
    parts.watch.complete(ongoing, direct_plan(), answer(8))
    parts.watch.failed(ongoing, direct_plan())
    assert parts.observer.told == []
