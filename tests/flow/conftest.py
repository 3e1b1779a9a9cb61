import asyncio
from types import SimpleNamespace

import pytest
import uvicorn.server
import uvloop

POLL_S = 0.005


def pytest_asyncio_loop_factories(config, item):
    """The proxy runs on uvloop wherever it is deployed, so it does here."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def server_that_stops_soon(monkeypatch):
    """uvicorn looks ten times a second whether it should stop, then whether it has: most of what a test would cost."""

    async def sleep(delay_s):
        await asyncio.sleep(min(delay_s, POLL_S))

    monkeypatch.setattr(uvicorn.server, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
