"""Messages and responses, whole and as streams: what is said in events is what is said at once."""

import json

from ppd_sim.http.dialects import message, message_events, response, response_events
from ppd_wire.events import EventReader

USAGE = {"input_tokens": 7, "output_tokens": 2}


def events(stream):
    found = [(event.name.decode(), json.loads(event.data)) for event in EventReader().feed(stream)]
    assert all(name == data["type"] for name, data in found)
    return [data for _, data in found]


def test_a_message_in_events_says_the_whole_message():
    whole = message("m", "hello", USAGE)
    first, _, text, _, end, last = events(message_events(whole))
    assert first["message"] == {**whole, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 0}}
    assert text["delta"] == {"type": "text_delta", "text": whole["content"][0]["text"]}
    assert (end["delta"]["stop_reason"], end["usage"]) == (whole["stop_reason"], USAGE)
    assert last == {"type": "message_stop"}


def test_a_response_in_events_ends_with_the_whole_response():
    whole = response("m", "hello", USAGE, 12)
    assert whole["usage"]["total_tokens"] == 9
    told = events(response_events(whole))
    assert [each["sequence_number"] for each in told] == [0, 1, 2, 3, 4]
    assert (told[2]["delta"], told[3]["text"]) == ("hello", "hello")
    assert told[0]["response"]["status"] == "in_progress"
    assert (told[-1]["type"], told[-1]["response"]) == ("response.completed", whole)
