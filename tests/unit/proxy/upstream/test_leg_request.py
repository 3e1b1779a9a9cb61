"""Where an engine listens."""

import pytest

from ppd_proxy.upstream.leg_request import Origin, parse_origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://10.0.0.1:8100", Origin("10.0.0.1", 8100, False, "10.0.0.1:8100")),
        ("https://engine:443", Origin("engine", 443, True, "engine")),
        ("http://engine:80", Origin("engine", 80, False, "engine")),
        ("http://[::1]:8100", Origin("::1", 8100, False, "[::1]:8100")),
    ],
)
def test_an_origin_is_read_from_a_base_url(url, origin):
    assert parse_origin(url) == origin
