"""One request from its call to its record, over engines without a socket."""

import json

import pytest
from tests.support.in_memory import House, settled
from tests.support.parts import ANSWER, Parts, make_call
from tests.support.steps import MESSAGES

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.config.sections import Limits
from ppd_proxy.request.director import CLIENT_GONE_STATUS
from ppd_wire.errors import BadRequest, Failure, ProxyError, Refusal

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
PREFILLED = b'{"choices":[{"index":0}],"usage":{"prompt_tokens":7},"kv_transfer_params":{"remote_host":"h"}}'
WHOLE = json.dumps(ANSWER).encode()
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
)
STOPPING = ProxyError("the proxy is stopping", status=503, reason=Failure.STOPPING, source="proxy")


@pytest.fixture
async def house():
    house = House(Parts())
    yield house
    await house.in_flight.stop()


def over(house):
    """The record of the one request, of which nothing is left."""
    [record] = house.finished
    assert (house.in_flight.count, house.parts.load.requests) == (0, {})
    return record


async def first_turn(house, body=CHAT):
    client, driver = house.serve(make_call(body))
    (await house.line(0)).replies(200, PREFILLED)
    return client, driver, await house.line(1)


async def test_a_first_turn_goes_to_both_engines_and_its_answer_to_the_client(house):
    client, _, decode = await first_turn(house)
    assert [line.host for line in house.lines.opened] == ["p1", "d1"]
    decode.replies(200, WHOLE)
    await settled()
    assert (client.status, client.body) == (200, WHOLE)
    assert client.headers[b"x-ppd-decision"] == b"pd;reason=first_turn;turn=1"
    record = over(house)
    assert (record.status, record.route, record.prompt_tokens, record.has_kv) == (200, "pd", 7, True)
    assert house.faults == [None]


async def test_a_later_turn_streams_from_its_home_on_the_connection_that_is_open(house):
    _, _, decode = await first_turn(house)
    decode.replies(200, WHOLE)
    messages = [*CHAT["messages"], {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and?"}]
    client, _ = house.serve(make_call({"messages": messages, "stream": True}))
    assert len(house.lines.opened) == 2
    decode.streams(*EVENTS[:2])
    await settled()
    assert (client.status, client.body) == (200, b"".join(EVENTS[:2]))
    assert client.headers[b"x-ppd-decision"] == b"direct;reason=known_history;turn=2"
    decode.goes_on(*EVENTS[2:])
    await settled()
    assert client.body == EVENTS[0] + EVENTS[1] + EVENTS[3]  # the usage was asked for by the proxy
    assert client.is_ended
    record = house.finished[1]
    assert (record.is_stream, record.turn, record.completion_tokens) == (True, 2, 2)
    assert record.first_token_at is not None


async def test_reads_of_one_turn_of_the_loop_leave_in_one_write(house):
    client, _, decode = await first_turn(house, {**CHAT, "stream": True})
    writes = []
    client.write = writes.append
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    decode.streams(piece)
    await settled()
    decode.goes_on(piece, piece, piece)
    await settled()
    assert writes == [piece * 3]


async def test_a_failed_attempt_is_followed_by_another(house):
    house.lines.refuses.add("p1")
    house.parts.fleet.add_static("http://p2:8000", "prefill", 0.0)
    house.parts.fleet.probed("p2:8000", True, 0.0)
    drivers = [house.serve(make_call(CHAT))[1] for _ in range(4)]  # some of them try p1 first
    await settled()
    assert {line.host for line in house.lines.opened} == {"p2"}
    records = [driver.ongoing.record for driver in drivers]
    assert {(record.prefill_id, record.reason) for record in records if record.retries} == {
        ("p2:8000", DecisionReason.PREFILL_FAILED)
    }
    assert house.parts.load.requests == {"p2:8000": 4, "d1:8000": 4}


async def test_an_engines_refusal_is_the_clients_answer_and_the_kv_is_given_back(house):
    client, _, decode = await first_turn(house)
    error = b'{"error":{"message":"too long","type":"BadRequestError","code":400}}'
    decode.replies(400, error)
    await settled()
    assert client.status == 400
    assert json.loads(client.body)["error"]["message"] == "too long"
    sent = house.lines.opened[-1].sent.rpartition(b"\r\n\r\n")[2]
    assert json.loads(sent)["cache_salt"].endswith("-apart")
    house.lines.opened[-1].replies(200, b'{"choices":[{"index":0}]}')
    await settled()
    assert over(house).status == 400
    assert house.parts.observer.of("kv_released") == [[]]


async def test_what_cannot_be_read_is_refused_and_counted(house):
    client, _ = house.serve(make_call(b"{"))
    assert (client.status, client.error.reason) == (400, Refusal.BAD_REQUEST)
    record = over(house)
    assert (record.status, record.route) == (400, "none")


async def test_a_large_body_is_read_between_the_turns_of_others(house):
    client, _ = house.serve(make_call({"messages": MESSAGES["many"]}))
    assert house.in_flight.count == 2
    await house.in_flight.tasks.rest()
    assert (await house.line(0)).host == "p1"
    assert client.status == 0


async def test_a_client_that_leaves_before_its_answer_is_counted_as_gone(house):
    _, driver = house.serve(make_call(CHAT))
    await house.line(0)
    driver.client_left()
    await settled()
    assert over(house).status == CLIENT_GONE_STATUS


async def test_a_proxy_that_stops_says_so(house):
    client, driver = house.serve(make_call(CHAT))
    driver.break_off(STOPPING)
    await settled()
    assert (client.status, over(house).status) == (503, 503)


async def test_a_fault_of_ours_leaves_nothing_behind(house):
    client, _, decode = await first_turn(house)


    def broken(*_):
        raise RuntimeError("a bug")

    client.answer = broken
    decode.replies(200, WHOLE)
    await settled()
    assert isinstance(house.faults[0], RuntimeError)
    assert (over(house).status, client.status) == (500, 0)


async def test_what_is_refused_before_it_was_read_is_counted(house):
    headers = dict(house.director.refuse(make_call(b""), BadRequest("no key", status=401, reason=Refusal.UNAUTHORIZED)))
    assert headers[b"x-ppd-decision"] == b"none;reason=unauthorized;turn=1"
    assert over(house).status == 401
    assert house.parts.observer.of("decided") == [["ppd", "none", Refusal.UNAUTHORIZED]]


async def test_a_deadline_that_passed_is_the_clients_answer():
    house = House(Parts(), Limits(prefill_timeout_s=0.01))
    client, driver = house.serve(make_call(CHAT))
    await house.line(0)
    driver.pass_deadline()
    await settled()
    assert (client.status, client.error.reason) == (504, Failure.ENGINE_TIMEOUT)
    assert over(house).reason == DecisionReason.FIRST_TURN
