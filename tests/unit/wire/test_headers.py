"""Which headers travel to the legs and back."""

import pytest

from ppd_wire.headers import bearer, find, forwarded, is_credential, request_head, returned


def lines(headers, authorization=None):
    return forwarded(headers, authorization).decode().split("\r\n")[:-1]


def test_p24_the_clients_authorization_travels_when_no_key_is_set():
    headers = [(b"authorization", b"Bearer client"), (b"x-api-key", b"k")]
    assert lines(headers) == ["authorization: Bearer client", "x-api-key: k"]


def test_p24_nothing_is_invented_for_a_client_without_authorization():
    assert lines([]) == []


def test_p24_the_engines_key_replaces_every_key_of_the_client():
    headers = [(b"authorization", b"Bearer client"), (b"x-api-key", b"k"), (b"authorization", b"again")]
    assert lines(headers, b"Bearer engine") == ["authorization: Bearer engine"]


def test_p25_tracing_rank_and_unknown_headers_travel_in_order():
    headers = [
        (b"traceparent", b"00-1-2-01"), (b"tracestate", b"a=b"), (b"baggage", b"c=d"), (b"baggage", b"e=f"),
        (b"x-data-parallel-rank", b"1"), (b"x-session-id", b"s"), (b"accept", b"text/event-stream"),
    ]  # fmt: skip
    assert lines(headers) == [f"{name.decode()}: {value.decode()}" for name, value in headers]


@pytest.mark.parametrize(
    "name",
    [
        b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization",
        b"proxy-connection", b"host", b"content-length", b"content-type", b"expect", b"accept-encoding",
        b"x-request-id", b"x-admin-key",
    ],
)  # fmt: skip
def test_p25_what_belongs_to_one_hop_does_not_travel(name):
    assert lines([(name, b"x"), (b"user-agent", b"curl")]) == ["user-agent: curl"]


def test_p25_headers_that_connection_names_do_not_travel():
    headers = [(b"connection", b"keep-alive, X-One , x-two"), (b"x-one", b"1"), (b"x-two", b"2"), (b"x-three", b"3")]
    assert lines(headers) == ["x-three: 3"]
    assert returned(headers, []) == [(b"x-three", b"3")]


def test_p25_several_connection_headers_count_as_one():
    headers = [(b"connection", b"x-one"), (b"connection", b"x-two"), (b"x-one", b"1"), (b"x-two", b"2")]
    assert lines(headers) == []


CREDENTIALS = (
    b"authorization", b"x-api-key", b"api-key", b"cookie", b"x-auth-token", b"x-amz-security-token", b"x-csrf-token",
    b"x-goog-iap-jwt-assertion", b"x-forwarded-access-token", b"ocp-apim-subscription-key", b"x-auth-request-user",
    b"x-client-secret", b"password", b"x-hub-signature", b"x-amzn-oidc-accesstoken", b"proxy-authorization",
)  # fmt: skip


@pytest.mark.parametrize("authorization", [None, b"Bearer engine"])
def test_an_engine_that_is_not_trusted_gets_no_key_of_anybody(authorization):
    headers = [(name, b"secret") for name in CREDENTIALS]
    harmless = [(b"x-session-id", b"s"), (b"traceparent", b"00-1-2-01"), (b"user-agent", b"curl")]
    said = forwarded([*headers, *harmless], authorization, is_trusted=False)
    assert said == b"".join(b"%b: %b\r\n" % pair for pair in harmless)
    assert all(is_credential(name) for name in CREDENTIALS)


def test_p8_each_leg_has_exactly_one_request_id_and_it_is_ours():
    head = request_head(
        b"/v1/completions?a=1", "10.0.0.1:8100", "ours", forwarded([(b"x-request-id", b"theirs")], None), 12
    )
    assert head == (
        b"POST /v1/completions?a=1 HTTP/1.1\r\nhost: 10.0.0.1:8100\r\ncontent-type: application/json\r\n"
        b"x-request-id: ours\r\ncontent-length: 12\r\n\r\n"
    )


def test_p10_p14_the_engines_headers_come_back_with_the_proxys_own():
    headers = [
        (b"content-type", b"application/json"), (b"retry-after", b"7"), (b"x-engine", b"1"), (b"server", b"uvicorn"),
        (b"date", b"now"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked"), (b"x-request-id", b"tag"),
        (b"connection", b"close"), (b"x-ppd-decision", b"forged"),
    ]  # fmt: skip
    own = [(b"x-ppd-decision", b"pd;reason=first_turn;turn=1"), (b"x-request-id", b"theirs")]
    assert returned(headers, own) == [
        (b"content-type", b"application/json"), (b"retry-after", b"7"), (b"x-engine", b"1"), *own,
    ]  # fmt: skip


def test_returned_headers_are_a_new_list():
    headers = [(b"content-type", b"a")]
    assert returned(headers, [(b"x", b"y")]) is not headers
    assert headers == [(b"content-type", b"a")]


def test_w3_a_body_that_was_read_is_not_called_compressed():
    assert returned([(b"content-encoding", b"gzip"), (b"x", b"y")], []) == [(b"x", b"y")]


def test_the_first_value_of_a_header_is_found():
    assert find([(b"a", b"1"), (b"a", b"2")], b"a") == b"1"
    assert find([], b"a") is None


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer k")], b"k"),
        ([(b"authorization", b"bearer  k ")], b"k"),
        ([(b"x-api-key", b"k")], b"k"),
        ([(b"authorization", b"Basic k")], None),
        ([(b"authorization", b"k")], None),
        ([(b"authorization", b"Bearer")], b""),
        ([], None),
    ],
)
def test_the_key_a_client_sent_is_found(headers, key):
    assert bearer(dict(headers)) == key
