"""Which URLs and headers can be sent."""

import pytest

from ppd_acc.ask.urls import wrong_in_header, wrong_in_url


@pytest.mark.parametrize(
    "url", ["http://engine:8000", "https://10.0.0.1", "http://[::1]:80/v1", "http://a_b.svc.", "http://b\u00fccher:1"]
)
def test_what_reaches_an_engine_is_right(url):
    assert wrong_in_url(url) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("engine:8000", "neither http"), ("http://en gine", "space"), ("http://a\x00b", "control"),
        ("http://a:0", "port 0"), ("http://a:99999", "ort"), ("http://", "host name"), ("http://[::g]", ""),
        ("http://a..b", "host name"), ("http://" + "a" * 70 + ".de", ""),
    ],
)  # fmt: skip
def test_what_does_not_is_told_why(url, why):
    assert why in wrong_in_url(url)


def test_a_headers_value_is_one_line_and_is_not_repeated():
    assert wrong_in_header("x-tenant", "a\tb") is None
    wrong = wrong_in_header("x-tenant", "secret\nx: y")
    assert wrong is not None
    assert "secret" not in wrong


def test_a_headers_name_has_no_spaces():
    assert "x tenant" in wrong_in_header("x tenant", "a")
