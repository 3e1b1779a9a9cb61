"""The two legs' prompt counts of one request, and what a difference means."""

import pytest
from tests.support.builders import direct_plan, pd_plan
from tests.support.shared import make_shared

from ppd_proxy.prompt_watch import PromptWatch
from ppd_wire.answers.answer import EngineAnswer, Usage
from ppd_wire.errors import Failure


def answer(tokens):
    return EngineAnswer(usage=Usage(prompt_tokens=tokens))


@pytest.fixture
async def shared():
    return make_shared()


@pytest.fixture
def watch(shared):
    watch = PromptWatch(shared)
    watch.prefilled(7)
    watch.begin()
    return watch


async def test_equal_counts_are_noted_as_agreement(shared, watch):
    assert watch.is_open
    assert watch.compare(answer(7)) is None
    watch.complete(pd_plan(), answer(7))
    assert shared.observer.of("prompts_compared") == [["same"]]
    assert shared.prompts.differences(("p1:8000", "d1:8000")) == (0, 1)
    assert not watch.is_open


async def test_a_stream_that_told_its_count_at_the_end_is_compared_then(shared, watch):
    watch.complete(pd_plan(), answer(7))
    assert shared.observer.of("prompts_compared") == [["same"]]


async def test_another_count_is_a_failed_leg_a_new_salt_and_a_doubt(shared, watch):
    failure = watch.compare(answer(8))
    assert (failure.error.reason, failure.is_our_doing) == (Failure.ENGINE_ERROR, False)
    assert "counts 7 tokens, the decode engine 8" in failure.error.message
    watch.failed(pd_plan())
    assert watch.doubted == {"p1:8000", "d1:8000"}
    assert shared.distrust.salt(direct_plan())
    [[pair, why, is_distrusted]] = shared.observer.of("prompts_differ")
    assert (pair, why, is_distrusted) == (("p1:8000", "d1:8000"), failure.error.message, False)


async def test_a_leg_that_failed_for_another_cause_raises_no_doubt(shared, watch):
    watch.failed(pd_plan())
    assert not watch.doubted
    assert shared.observer.told == []


async def test_an_engine_that_tells_no_count_is_at_no_fault(shared, watch):
    assert watch.compare(None) is None
    watch.complete(pd_plan(), None)
    assert shared.observer.of("prompts_compared") == [["unknown"]]
    assert shared.prompts.differences(("p1:8000", "d1:8000")) == (0, 0)


async def test_without_a_prefill_leg_there_is_nothing_to_compare(shared):
    watch = PromptWatch(shared)
    assert not watch.is_open
    assert watch.compare(answer(8)) is None
    watch.complete(direct_plan(), answer(8))
    assert shared.observer.told == []
