"""Blocks that a request loses, and prompts that must be computed: the scheduler's half in the cases that vLLM's own
scheduler makes rare."""

from __future__ import annotations

import pytest
from tests.support.connector.kv_engines import key_of, settings_of
from tests.support.connector.scheduled import PROMPT, CachedRequestData, NewRequestData, Request, SchedulerOutput

from ppd_connector.plan import Step
from ppd_connector.scheduling import Scheduling
from ppd_connector.wire import request_tag

P, D = "10.0.0.1:21001", "10.0.0.2:22001"
END = len(PROMPT) - 1
BLOCKS = tuple(range(50, 60))
OTHER_BLOCKS = tuple(range(70, 80))


def request() -> Request:
    return Request(f"chatcmpl-{request_tag(P, D, key_of(1))}-1a2b3c4d")


def scheduling(role: str, own_address: str) -> Scheduling:
    return Scheduling(settings_of(role, send_type="GET"), block_tokens=4, own_address=own_address)


def prefilled(engine: Scheduling, asked: Request, blocks: tuple[int, ...]) -> Step:
    """A step that computes the whole prompt of a request that is new to the worker."""
    data = NewRequestData(asked.request_id, asked.prompt_token_ids, [], (list(blocks),), 0)
    return engine.step(SchedulerOutput([data], CachedRequestData(), {asked.request_id: END + 1}))


def resumed(engine: Scheduling, asked: Request, blocks: tuple[int, ...]) -> Step:
    """The same of one that the worker (first model runner) knows."""
    data = CachedRequestData([asked.request_id], {asked.request_id}, [(list(blocks),)], [0])
    return engine.step(SchedulerOutput([], data, {asked.request_id: END + 1}))


@pytest.mark.parametrize("again", [resumed, prefilled])
def test_a_preempted_request_is_offered_anew_in_its_new_blocks(again):
    engine, asked = scheduling("kv_producer", P), request()
    (first,) = prefilled(engine, asked, BLOCKS).saves
    (second,) = again(engine, asked, OTHER_BLOCKS).saves
    assert first.blocks == BLOCKS[: len(first.blocks)]
    assert second.blocks == OTHER_BLOCKS[: len(second.blocks)]
    assert (second.first_token, second.end_token, second.is_last) == (0, END, True)
    assert engine.finished(asked.request_id, OTHER_BLOCKS, is_complete=True) == (True, None)


@pytest.mark.parametrize("blocks_now", [(), OTHER_BLOCKS], ids=["none", "others"])
def test_nothing_is_read_from_blocks_that_a_finished_request_lost(blocks_now):
    engine, asked = scheduling("kv_producer", P), request()
    prefilled(engine, asked, BLOCKS)
    assert engine.finished(asked.request_id, blocks_now, is_complete=True) == (False, None)
    step = engine.step(SchedulerOutput([], CachedRequestData(), {}))
    assert (step.held, step.dropped) == ([], [asked.request_id])


def test_a_request_that_must_compute_its_prompt_takes_nothing():
    engine, asked = scheduling("kv_consumer", D), request()
    asked.skip_reading_prefix_cache = True
    assert engine.matched_tokens(asked, 0) == 0
    engine.allocated(asked, BLOCKS, 0)
    step = engine.step(SchedulerOutput([], CachedRequestData(), {}))
    assert [each.reason for each in step.unneeded] == ["unused"]
