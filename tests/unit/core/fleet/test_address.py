"""One spelling of an engine's `Host`, whoever asks it."""

import asyncio

import pytest
from aiohttp import ClientRequest
from yarl import URL

from ppd_core.fleet.address import authority, parse_url
from ppd_proxy.upstream.leg_request import parse_origin

URLS = {
    "https://name": "name",
    "https://name:443": "name",
    "https://name:80": "name:80",
    "http://name": "name",
    "http://Name:80/": "name",
    "http://name:443": "name:443",
    "http://name:8000": "name:8000",
    "http://name.:80": "name",
    "https://name.:8443": "name:8443",
    "http://10.0.0.1:80": "10.0.0.1",
    "http://10.0.0.1:180": "10.0.0.1:180",
    "http://[::1]:80": "[::1]",
    "https://[fd00::443]:443": "[fd00::443]",
    "http://[fd00::80]:8000": "[fd00::80]:8000",
}


@pytest.mark.parametrize(("url", "host"), URLS.items())
async def test_legs_name_an_engine_as_probes_scrapes_and_pass_through_do(url, host):
    _, base = parse_url(url)
    probe = ClientRequest("GET", URL(f"{base}/health"), loop=asyncio.get_running_loop())
    assert parse_origin(base).authority == authority(base) == probe.headers["Host"] == host
