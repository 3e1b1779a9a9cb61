"""The request id that names both engines: what our engines read from it, and what stock ones still find in it."""

import re

import pytest

from ppd_connector.wire import Tag, announcement, parse_tag, request_tag

KEY = "0123456789abcdef0123456789abcdef"
P, D = "10.0.0.1:21001", "10.0.0.2:22001"
AS_ENGINES_SEE_IT = ("chatcmpl-{}-1a2b3c4d", "cmpl-{}-0-1a2b3c4d", "cmpl-{}-0", "{}")


@pytest.mark.parametrize("shape", AS_ENGINES_SEE_IT)
@pytest.mark.parametrize("held_tokens", [0, 1, 16, 131_071])
def test_a_tag_is_found_inside_the_id_an_engine_makes_of_it(shape, held_tokens):
    tag = request_tag(P, D, KEY, held_tokens)
    assert parse_tag(shape.format(tag)) == Tag(prefill=P, decode=D, key=KEY, held_tokens=held_tokens)


@pytest.mark.parametrize("held_tokens", [0, -1])
def test_a_tag_of_nothing_held_is_the_stock_one(held_tokens):
    assert request_tag(P, D, KEY, held_tokens) == f"___prefill_addr_{P}___decode_addr_{D}_{KEY}"


@pytest.mark.parametrize("shape", AS_ENGINES_SEE_IT)
@pytest.mark.parametrize("held_tokens", [0, 1792])
def test_stock_engines_find_the_addresses_in_the_tag(shape, held_tokens):
    """The regular expressions of vLLM's own P2pNcclConnector; the suffix is what 0.14 and later append."""
    seen = shape.format(request_tag(P, D, KEY, held_tokens))
    assert re.search(r"___decode_addr_(.*):(\d+)", seen).groups() == ("10.0.0.2", "22001")
    assert re.search(r"___prefill_addr_(.*):(\d+)___", seen).groups() == ("10.0.0.1", "21001")


@pytest.mark.parametrize("text", ["", "chatcmpl-" + KEY, f"___prefill_addr_{P}___decode_addr_{D}_abc"])
def test_an_id_without_a_tag_has_none(text):
    assert parse_tag(text) is None


@pytest.mark.parametrize("ending", ["_held", "_held-1a2b3c4d", "_heldx", "_held" + "9" * 5000])
def test_an_ending_that_is_no_number_of_tokens_holds_nothing(ending):
    assert parse_tag(request_tag(P, D, KEY) + ending) == Tag(prefill=P, decode=D, key=KEY)


def test_an_announcement_of_ours_says_what_stock_ones_do_not():
    stock = {"type": "P", "http_address": "h:1", "zmq_address": "h:2"}
    assert announcement("P", "h:1", "h:2") == stock
    ours = announcement("P", "h:1", "h:2", ppd=True, connector_version="1.0", role="both")
    assert ours == stock | {"ppd": True, "connector_version": "1.0", "role": "both"}
