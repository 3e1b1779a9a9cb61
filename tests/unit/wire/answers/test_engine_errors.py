"""What engines say of errors, and what of it a client sees."""

import json

import pytest

from ppd_wire.answers.engine_errors import quote, read_error, shown_error

TAG = b"___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_" + b"ab" * 16
PUBLIC = b"cd" * 16
VLLM = b'{"error":{"message":"top_p must be in (0, 1]","type":"BadRequestError","param":"top_p","code":400}}'


def shown(body, hidden=TAG):
    return shown_error(body, hidden_id=hidden, public_id=PUBLIC)


@pytest.mark.parametrize(
    "body",
    [
        VLLM, b' {"detail" : "Not Found"}\n', b'{"object":"error","message":"no","code":1.0E2}', b"{}",
        b'{"type":"error","error":{"type":"BadRequestError","message":"use trust_remote_code, at my_addr_x"}}',
    ],
)  # fmt: skip
def test_w3_an_engines_error_passes_byte_for_byte(body):
    assert shown(body) == body


def test_w3_ids_and_handoff_parameters_are_taken_out_of_errors():
    body = b'{"error":{"message":"request cmpl-%b was aborted"},"kv_transfer_params":{"remote_host":"10.0.0.1"}}' % TAG
    assert json.loads(shown(body)) == {"error": {"message": f"request cmpl-{PUBLIC.decode()} was aborted"}}


UNSHOWN = [
    b"", b"<html>502</html>", b"Internal Server Error", b"[]", b"null", b'{"error":', b'{"error":{"message":"\xff"}}',
    b'{"error":{"message":"x","kv_transfer_params":{"remote_host":"10.0.0.1"}}}',
    b'{"error":{"message":"input: {\'kv_transfer_params\': {\'remote_host\': \'10.0.0.1\'}}"}}',
    b'{"kv_transfer_params":{"remote_host":"10.0.0.1"},"error"', b"lost remote_host=10.0.0.1 for " + TAG,
    b'{"error":{"message":"___prefill_addr_10.0.0.1:5___decode_addr_10.0.0.2:6_ff is unknown"}}',
]  # fmt: skip


@pytest.mark.parametrize("body", UNSHOWN)
def test_w3_what_cannot_be_filtered_is_not_passed_on_nor_quoted(body):
    assert shown(body) is None
    words = quote(503, body, hidden_id=TAG)
    assert words.startswith("the engine answered 503")
    for hidden in ("10.0.0", "addr", "transfer_params", TAG.decode()):
        assert hidden not in words


def test_w3_a_quote_is_short_and_on_one_line():
    assert quote(404, b"Not\n Found \xff", hidden_id=TAG) == "the engine answered 404: Not Found \ufffd"
    assert len(quote(500, b"<p>" * 100_000, hidden_id=TAG)) < 250


@pytest.mark.parametrize(
    ("body", "message", "status"),
    [
        (VLLM, "top_p must be in (0, 1]", 400),
        (b'{"type":"error","error":{"type":"internal_error","message":"lost"}}', "lost", 500),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', "busy", 529),
        (b'{"type":"error","code":"rate_limit_exceeded","message":"slow down","param":null}', "slow down", 429),
        (b'{"error":"no"}', "no", 502), (b'{"message":"no","code":200}', "no", 502), (b"no", "no", 502),
        (b'{"error":{"message":["no"],"code":true}}', "the engine reported an error", 502),
        (b'{"error":{"message":"no","type":"NotFoundError"}}', "no", 404), (b"", "the engine reported an error", 502),
    ],
)  # fmt: skip
def test_errors_of_every_shape_are_read(body, message, status):
    said = read_error(body)
    assert (said.message, said.status) == (message, status)
