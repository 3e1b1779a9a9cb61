import pytest
import uvloop

from ppd_proxy.runtime import runtime
from ppd_proxy.server import listening
from ppd_proxy.upstream import scrape


def pytest_asyncio_loop_factories(config, item):
    """The proxy runs on uvloop wherever it is deployed, so it does here."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _what_passes_with_time_is_seen_soon(monkeypatch):
    """The proxy looks once a second: at announcements and conversations that grow old, at engines' figures, at what
    clients have not taken, and whether nobody has sent anything for a while at its end. Here ten times as often."""
    monkeypatch.setattr(runtime, "TICK_S", 0.1)
    monkeypatch.setattr(scrape, "MIN_INTERVAL_S", 0.1)
    monkeypatch.setattr(listening, "MAX_LOOK_S", 0.1)
    monkeypatch.setattr(listening, "IDLE_WINDOW_S", 0.1)
