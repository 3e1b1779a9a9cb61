import socket

import pytest
from tests.support.connector.kv_engines import KvEngine, settings_of
from tests.support.connector.memory_store import MemoryStore


@pytest.fixture
def engine():
    """Starts engines: `engine(role, store, **settings)`; all are stopped at the end."""
    started = []

    def start(role, store=None, **changes):
        started.append(KvEngine(store or MemoryStore(), settings_of(role, **changes)))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def silent_address():
    """Somebody accepts connections there and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
