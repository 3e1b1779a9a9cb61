"""The scheduler's half, driven in the order in which vLLM 0.32 calls its connector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.connector.kv_engines import key_of, settings_of
from tests.support.connector.scheduled import (
    PROMPT,
    CachedRequestData,
    Feature,
    Lora,
    NewRequestData,
    Request,
    SchedulerOutput,
)

from ppd_connector.figures import RequestFigures
from ppd_connector.plan import Step, Unneeded
from ppd_connector.scheduling import Scheduling, prompt_digest, side_of
from ppd_connector.wire import TRANSFER_FIELD, parse_tag, request_tag

P, D = "10.0.0.1:21001", "10.0.0.2:22001"
END = len(PROMPT) - 1
BLOCKS = tuple(range(50, 60))


def tagged(held: int = 0, key: str = key_of(1)) -> str:
    return f"chatcmpl-{request_tag(P, D, key, held)}-1a2b3c4d"


def producer(**changes: Any) -> Scheduling:
    return Scheduling(settings_of("kv_producer", **changes), block_tokens=4, own_address=P)


def consumer(**changes: Any) -> Scheduling:
    return Scheduling(settings_of("kv_consumer", **changes), block_tokens=4, own_address=D)


def new(scheduling: Scheduling, request: Request, scheduled: int, *, computed: int = 0, blocks: int = 10) -> Step:
    """A step in which the request is scheduled for the first time (or resumed, as the second model runner has it)."""
    data = NewRequestData(
        request.request_id, request.prompt_token_ids, request.mm_features, (list(BLOCKS[:blocks]),), computed,
        request.lora_request,
    )  # fmt: skip
    return scheduling.step(SchedulerOutput([data], CachedRequestData(), {request.request_id: scheduled}))


def cached(scheduling: Scheduling, request: Request, scheduled: int, *, computed: int, blocks: list[int] | None = None,
           is_resumed: bool = False) -> Step:  # fmt: skip
    resumed = {request.request_id} if is_resumed else set()
    data = CachedRequestData([request.request_id], resumed, [None if blocks is None else (blocks,)], [computed])
    return scheduling.step(SchedulerOutput([], data, {request.request_id: scheduled}))


def idle(scheduling: Scheduling) -> Step:
    return scheduling.step(SchedulerOutput([], CachedRequestData(), {}))


def is_idle(step: Step) -> bool:
    return step == Step()


def span(step: Step) -> tuple[int, int, bool]:
    (save,) = step.saves
    return save.first_token, save.end_token, save.is_last


# Whose request it is


@pytest.mark.parametrize("make", [producer, consumer])
@pytest.mark.parametrize("request_id", ["chatcmpl-1a2b", "a_held16", ""])
def test_a_request_without_a_tag_is_none_of_ours(make, request_id):
    scheduling, request = make(), Request(request_id)
    assert scheduling.matched_tokens(request, 0) == 0
    scheduling.allocated(request, BLOCKS, 0)
    assert is_idle(new(scheduling, request, len(PROMPT)))
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, None)
    assert is_idle(idle(scheduling))


@pytest.mark.parametrize("make", [producer, consumer])
def test_a_malformed_tag_is_counted_once_and_computed_here(make):
    """However often the request is looked at before there is room for it."""
    scheduling, request = make(), Request(f"cmpl-___prefill_addr_{P}___decode_addr_{D}_nokey")
    for _ in range(3):
        assert scheduling.matched_tokens(request, 0) == 0
    scheduling.allocated(request, BLOCKS, 0)
    assert new(scheduling, request, len(PROMPT)) == Step(malformed=1)
    assert scheduling.matched_tokens(request, 0) == 0
    assert is_idle(cached(scheduling, request, 1, computed=len(PROMPT)))
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, None)
    scheduling.matched_tokens(request, 0)
    assert idle(scheduling) == Step(malformed=1), "another request by that name"


@pytest.mark.parametrize(
    ("role", "own", "side"),
    [
        ("kv_producer", "elsewhere:1", "prefill"),
        ("kv_consumer", "elsewhere:1", "decode"),
        ("kv_both", P, "prefill"),
        ("kv_both", D, "decode"),
        ("kv_both", "elsewhere:1", None),
    ],
)
def test_the_role_or_the_own_address_tells_the_side(role, own, side):
    tag = parse_tag(tagged())
    assert side_of(tag, settings_of(role), own) == side
    scheduling = Scheduling(settings_of(role), block_tokens=4, own_address=own)
    assert (scheduling.matched_tokens(Request(tagged()), 0) > 0) is (side == "decode")
    assert bool(new(scheduling, Request(tagged()), len(PROMPT)).saves) is (side == "prefill")


def test_an_engine_that_is_both_ends_of_a_tag_moves_nothing():
    assert side_of(parse_tag(request_tag(P, P, key_of(1))), settings_of("kv_both"), P) is None


# The decode engine


def test_a_first_turn_takes_all_but_the_last_token():
    scheduling, request = consumer(), Request(tagged())
    assert scheduling.matched_tokens(request, 0) == END
    assert scheduling.matched_tokens(request, 0) == END, "asked again while there is no room"
    scheduling.allocated(request, BLOCKS, END)
    (load,) = idle(scheduling).loads
    assert (load.first_token, load.end_token, load.blocks) == (0, END, BLOCKS)
    assert (load.request_id, load.key, load.peer) == (request.request_id, key_of(1), P)
    assert load.token_ids == ()
    assert is_idle(idle(scheduling)), "told once"


@pytest.mark.parametrize("held", [0, 16, 18])
def test_a_prefix_that_is_here_is_not_taken(held):
    scheduling, request = consumer(), Request(tagged(held))
    assert scheduling.matched_tokens(request, 16) == END - 16
    scheduling.allocated(request, BLOCKS, END - 16)
    (load,) = idle(scheduling).loads
    assert (load.first_token, load.end_token) == (16, END)


@pytest.mark.parametrize(("held", "computed"), [(20, 16), (8, 4), (9999, 32), (4, 0)])
def test_what_was_left_out_and_is_not_here_any_more_is_computed(held, computed):
    scheduling, request = consumer(), Request(tagged(held))
    assert scheduling.matched_tokens(request, computed) == 0
    scheduling.allocated(request, BLOCKS, 0)
    assert idle(scheduling).unneeded == [Unneeded(key=key_of(1), peer=P, reason="prefix_not_held")]


def test_a_prefix_that_comes_back_while_the_request_waits_is_used():
    scheduling, request = consumer(), Request(tagged(16))
    assert scheduling.matched_tokens(request, 12) == 0
    assert scheduling.matched_tokens(request, 16) == END - 16


def test_with_get_a_gap_is_fetched():
    scheduling = consumer(send_type="GET")
    assert scheduling.matched_tokens(Request(tagged(20)), 4) == END - 4


@pytest.mark.parametrize("send_type", ["PUT", "PUT_ASYNC", "GET"])
def test_who_has_everything_takes_nothing_and_says_so(send_type):
    scheduling, request = consumer(send_type=send_type), Request(tagged(9999))
    assert scheduling.matched_tokens(request, END) == 0
    scheduling.allocated(request, BLOCKS, 0)
    assert idle(scheduling).unneeded == [Unneeded(key=key_of(1), peer=P, reason="unused")]


@pytest.mark.parametrize("external", [0, END])
def test_kv_is_taken_once(external):
    """vLLM asks again after a failed load, when the loaded request is scheduled and when it was preempted."""
    scheduling, request = consumer(), Request(tagged())
    scheduling.matched_tokens(request, 0)
    scheduling.allocated(request, BLOCKS, external)
    idle(scheduling)
    for computed in (0, 16, END):
        assert scheduling.matched_tokens(request, computed) == 0
        scheduling.allocated(request, BLOCKS, 0)
    assert is_idle(idle(scheduling))


@pytest.mark.parametrize("prompt", [[7], [], None])
def test_a_prompt_of_one_token_needs_nothing(prompt):
    request = Request(tagged(), prompt_token_ids=prompt)
    scheduling = consumer()
    assert scheduling.matched_tokens(request, 0) == 0
    scheduling.allocated(request, BLOCKS[:1], 0)
    assert [each.reason for each in idle(scheduling).unneeded] == ["unused"]
    assert is_idle(new(producer(), request, 1))


# The prefill engine


def test_a_prompt_that_is_computed_at_once_leaves_at_once():
    (save,) = new(producer(), Request(tagged()), len(PROMPT)).saves
    assert (save.first_token, save.end_token, save.from_token, save.total_tokens) == (0, END, 0, END)
    assert (save.is_last, save.key, save.peer, save.token_ids) == (True, key_of(1), D, ())
    assert save.blocks == BLOCKS[:9]


@pytest.mark.parametrize(("held", "from_token"), [(3, 0), (4, 4), (19, 16), (35, 32)])
def test_whole_blocks_that_the_peer_holds_are_left_out(held, from_token):
    (save,) = new(producer(), Request(tagged(held)), len(PROMPT)).saves
    assert (save.first_token, save.from_token, save.end_token) == (from_token, from_token, END)
    (save,) = new(producer(send_type="GET"), Request(tagged(held)), len(PROMPT)).saves
    assert (save.first_token, save.from_token) == (0, 0), "a consumer that fetches says what it needs"


def test_what_the_peer_holds_altogether_is_not_sent():
    scheduling, request = producer(), Request(tagged(9999))
    assert is_idle(new(scheduling, request, len(PROMPT)))
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, None)


def test_a_prefix_hit_leaves_with_the_rest():
    assert span(new(producer(), Request(tagged()), len(PROMPT) - 20, computed=20)) == (0, END, True)


def test_chunks_leave_as_they_are_computed():
    scheduling, request = producer(), Request(tagged(6))
    assert is_idle(new(scheduling, request, 3, blocks=1)), "left out altogether"
    step = cached(scheduling, request, 7, computed=3, blocks=[51, 52])
    assert span(step) == (4, 10, False)
    assert step.saves[0].blocks == (50, 51, 52)
    step = cached(scheduling, request, 1, computed=10)
    assert span(step) == (10, 11, False)
    assert step.saves[0].blocks == (50, 51, 52)
    step = cached(scheduling, request, 26, computed=11, blocks=[90, 91, 92, 93, 94, 95, 96])
    assert span(step) == (11, END, True)
    assert step.saves[0].blocks == (50, 51, 52, 90, 91, 92, 93, 94, 95)
    assert is_idle(cached(scheduling, request, 1, computed=37, blocks=[97]))


def test_a_chunk_that_ends_before_the_last_token_ends_the_transfer():
    """The last prompt token is computed on the decode engine: all else may be there a step earlier."""
    scheduling, request = producer(), Request(tagged())
    assert span(new(scheduling, request, END)) == (0, END, True)
    assert is_idle(cached(scheduling, request, 1, computed=END))


def test_get_offers_the_whole_once():
    scheduling, request = producer(send_type="GET"), Request(tagged(6))
    assert is_idle(new(scheduling, request, 10, blocks=3))
    step = cached(scheduling, request, 27, computed=10, blocks=[91, 92, 93, 94, 95, 96, 97])
    assert span(step) == (0, END, True)
    assert step.saves[0].blocks == (50, 51, 52, 91, 92, 93, 94, 95, 96)


@pytest.mark.parametrize("as_new", [False, True])
def test_a_preempted_request_goes_on_where_it_was_in_its_new_blocks(as_new):
    """The first model runner lists it as resumed, the second as new; what left is not sent again."""
    scheduling, request = producer(), Request(tagged())
    assert span(new(scheduling, request, 10, blocks=3)) == (0, 10, False)
    other = [70, 71, 72, 73, 74, 75, 76, 77, 78, 79]
    if as_new:
        data = NewRequestData(request.request_id, PROMPT, [], (other,), 0)
        step = scheduling.step(SchedulerOutput([data], CachedRequestData(), {request.request_id: 8}))
    else:
        step = cached(scheduling, request, 8, computed=0, blocks=other, is_resumed=True)
    assert is_idle(step)
    step = cached(scheduling, request, 29, computed=8)
    assert span(step) == (10, END, True)
    assert step.saves[0].blocks == tuple(other[:9])


def test_a_request_preempted_after_its_last_save_is_not_saved_again():
    scheduling, request = producer(), Request(tagged())
    new(scheduling, request, len(PROMPT))
    assert is_idle(cached(scheduling, request, len(PROMPT), computed=0, blocks=list(BLOCKS), is_resumed=True))


def test_several_requests_of_a_step_are_told_apart():
    scheduling = producer()
    one, other = Request(tagged(key=key_of(1))), Request(tagged(key=key_of(2)))
    new(scheduling, one, 8, blocks=2)
    data = NewRequestData(other.request_id, PROMPT, [], ([70, 71],), 0)
    untagged = NewRequestData("cmpl-1", PROMPT, [], ([80],), 0)
    running = CachedRequestData(["cmpl-2", one.request_id], set(), [None, ([52],)], [30, 8])
    scheduled = {one.request_id: 4, other.request_id: 5, "cmpl-1": 4, "cmpl-2": 1}
    step = scheduling.step(SchedulerOutput([untagged, data], running, scheduled))
    found = [(save.key, save.first_token, save.end_token, save.blocks) for save in step.saves]
    assert found == [(key_of(2), 0, 5, (70, 71)), (key_of(1), 8, 12, (50, 51, 52))]


# The end


@pytest.mark.parametrize(
    ("computed", "is_complete", "is_held"), [(37, True, True), (37, False, False), (9, True, False)]
)
def test_with_get_blocks_stay_if_all_kv_is_there_and_nobody_gave_it_up(computed, is_complete, is_held):
    scheduling, request = producer(send_type="GET"), Request(tagged())
    new(scheduling, request, computed)
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=is_complete) == (is_held, None)
    step = idle(scheduling)
    assert (step.held, step.dropped) == (([request.request_id], []) if is_held else ([], [request.request_id]))
    assert is_idle(idle(scheduling))


@pytest.mark.parametrize("send_type", ["PUT", "PUT_ASYNC"])
def test_with_put_blocks_never_stay(send_type):
    scheduling, request = producer(send_type=send_type), Request(tagged())
    new(scheduling, request, len(PROMPT))
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, None)
    assert is_idle(idle(scheduling))


def test_the_answer_tells_what_the_load_cost_over_all_ranks():
    scheduling, request = consumer(), Request(tagged())
    scheduling.matched_tokens(request, 0)
    scheduling.figures(request.request_id, RequestFigures(100, 0.5, 9, 2))
    scheduling.figures(request.request_id, RequestFigures(100, 0.25, 9, 2))
    told = {"bytes": 200, "seconds": 0.5, "blocks": 9, "skipped_blocks": 2}
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, {TRANSFER_FIELD: told})
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, None)
    scheduling.figures(request.request_id, RequestFigures(100, 0.25, 9, 2))
    assert scheduling.finished(request.request_id, BLOCKS, is_complete=True) == (False, None), "kept for nobody"


# Digests and dumps


def digests(on_p: Request, on_d: Request) -> tuple[str, str]:
    (save,) = new(producer(), on_p, len(PROMPT)).saves
    d = consumer()
    d.matched_tokens(on_d, 0)
    d.allocated(on_d, BLOCKS, END)
    (load,) = idle(d).loads
    return save.prompt, load.prompt


def test_both_sides_have_the_same_digest():
    def request() -> Request:
        return Request(tagged(), mm_features=[Feature("img-a"), Feature("img-b")], lora_request=Lora("law"))

    one, other = digests(request(), request())
    assert one == other
    changed = request()
    changed.prompt_token_ids = [*PROMPT[:-1], 9]
    assert digests(changed, changed) == (one, one), "the KV of the last token does not travel"


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_token_ids": [1, *PROMPT[1:]]},
        {"prompt_token_ids": [*PROMPT[:-2], 1, PROMPT[-1]]},
        {"mm_features": [Feature("img-b")]},
        {"mm_features": [Feature("img-a"), Feature("img-a")]},
        {"mm_features": []},
        {"lora_request": None},
        {"lora_request": Lora("medicine")},
    ],
)
def test_the_digest_covers_what_kv_depends_on(changes):
    facts = {"mm_features": [Feature("img-a")], "lora_request": Lora("law")}
    one, other = digests(Request(tagged(), **facts), Request(tagged(), **{**facts, **changes}))
    assert one != other


def test_the_digest_keeps_its_parts_apart():
    assert prompt_digest([1, 2], ["mm=a", "mm=b"]) != prompt_digest([1, 2], ["mm=amm=b"])
    assert prompt_digest([1, 2], []) != prompt_digest([2, 1], [])
    assert prompt_digest([2**40], []) != prompt_digest([0], [])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_both_sides_dump_the_same_requests(share):
    settings = {"dump_dir": Path("/nowhere"), "dump_share": share}
    p, d, dumped = producer(**settings), consumer(**settings), []
    for number in range(200):
        request = Request(tagged(key=key_of(number * 31)))
        (save,) = new(p, request, len(PROMPT)).saves
        d.matched_tokens(request, 0)
        d.allocated(request, BLOCKS, END)
        (load,) = idle(d).loads
        assert save.token_ids == load.token_ids
        assert save.token_ids in ((), tuple(PROMPT[:-1]))
        dumped.append(bool(save.token_ids))
    assert abs(sum(dumped) / 200 - share) < (0.1 if share == 0.3 else 1e-9)


def test_only_the_last_save_of_a_request_is_dumped():
    scheduling, request = producer(dump_dir=Path("/nowhere")), Request(tagged())
    (save,) = new(scheduling, request, 10, blocks=3).saves
    assert save.token_ids == ()
    (save,) = cached(scheduling, request, 27, computed=10, blocks=[60] * 7).saves
    assert save.token_ids == tuple(PROMPT[:-1])
