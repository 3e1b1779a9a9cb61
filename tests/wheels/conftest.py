"""Engines that are closed when the test ends."""

from contextlib import ExitStack

import pytest
from tests.wheels.releases import load
from tests.wheels.side import Peer, Side
from tests.wheels.stubs import KeepingContext


@pytest.fixture
def sides():
    """Make engines of a release: `sides(version, producer=..., timeout_s=..., patched=...)`."""
    with ExitStack() as stack:

        def make(version: str, producer: bool, patched: bool = True, **options) -> Side:
            side = Side(load(version, patched), producer, **options)
            stack.callback(side.close)
            return side

        yield make


@pytest.fixture(scope="module")
def shared():
    """An engine that a test leaves as it was: `shared(version, producer)` makes one per release and role."""
    made: dict[tuple[str, bool], Side] = {}

    def side(version: str, producer: bool) -> Side:
        if (version, producer) not in made:
            made[version, producer] = Side(load(version), producer)
        return made[version, producer]

    yield side
    for one in made.values():
        one.close()


@pytest.fixture
def context():
    """A zmq context for raw sockets; its sockets are closed with it."""
    made = KeepingContext()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def peers(context):
    """Make raw sockets that talk to a side's listener."""
    return lambda side, **options: Peer(context, side.address, **options)
