"""Request bodies while they arrive: bounded, counted, and given back."""

import pytest

from ppd_proxy.admission.buffered import Buffered
from ppd_proxy.config.sections import Server
from ppd_proxy.server.bodies import UNCHECKED_BYTES, Bodies, ClientLeft, replay
from ppd_wire.errors import BadRequest, NoRoute, Refusal

LIMITS = Server(max_body_bytes=300_000, max_json_depth=10, max_json_values=100_000)
DEEP = b"[" * 11 + b'"' + b"x" * UNCHECKED_BYTES + b'"' + b"]" * 11


@pytest.fixture
def buffered():
    return Buffered(1_000_000)


@pytest.fixture
def bodies(buffered):
    return Bodies(LIMITS, buffered)


def receiving(*messages):
    """An ASGI `receive` of these messages."""
    rest = iter(messages)

    async def receive():
        return next(rest)

    return receive


def fed(bodies, parts):
    """All parts of a body of which more would come."""
    body = bodies.open()
    assert [whole for part in parts if (whole := body.feed(part, is_whole=False)) is not None] == []


def part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_parts_is_whole_held_and_given_back(bodies, buffered):
    body = await bodies.read({}, receiving(part(b"[1,", more=True), part(b"2]")))
    assert (body, buffered.held_bytes) == (b"[1,2]", 5)
    bodies.free(body)
    assert buffered.held_bytes == 0


async def test_a_body_in_one_part_is_not_copied(bodies):
    only = b"x" * 100
    assert await bodies.read({}, receiving(part(only))) is only


async def test_a_client_that_leaves_takes_its_body_along(bodies, buffered):
    with pytest.raises(ClientLeft):
        await bodies.read({}, receiving(part(b"[1,", more=True), {"type": "http.disconnect"}))
    assert buffered.held_bytes == 0


def test_a_body_that_says_it_is_too_large_is_refused_at_once(bodies):
    with pytest.raises(BadRequest) as refused:
        bodies.check(300001)
    assert (refused.value.status, refused.value.reason) == (413, Refusal.BODY_TOO_LARGE)
    bodies.check(300000)


def test_a_body_that_becomes_too_large_is_refused_and_not_held(bodies, buffered):
    with pytest.raises(BadRequest) as refused:
        fed(bodies, [b" " * 50_000] * 7)
    assert (refused.value.status, buffered.held_bytes) == (413, 0)


def test_where_too_much_is_held_no_other_body_begins(bodies, buffered):
    buffered.hold(1_000_001)
    with pytest.raises(NoRoute):
        bodies.check(None)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_too_much_structure_is_refused_wherever_the_parts_end(bodies, buffered, size):
    parts = [DEEP[start : start + size] for start in range(0, len(DEEP), size)]
    with pytest.raises(BadRequest, match=r"levels of nesting .* at most 10 are taken \(--max-json-depth") as refused:
        fed(bodies, parts)
    assert (refused.value.status, refused.value.reason) == (400, Refusal.BODY_TOO_COMPLEX)
    assert buffered.held_bytes == 0


def test_a_small_body_is_left_to_its_decoder(bodies):
    small = b"[" * 1000
    assert bodies.open().feed(small, is_whole=True) == small


async def test_a_body_that_was_read_is_received_again_before_what_follows():
    receive = replay(b"hi", receiving({"type": "http.disconnect"}))
    assert await receive() == part(b"hi")
    assert await receive() == {"type": "http.disconnect"}
