"""The HTTP client of everything that is not the data path: probes, scraping, pass-through, shadow legs.

Owns how that session is made and how its errors become ours. Who makes a session closes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from ppd_proxy.upstream.shortage import OUT_OF_SOCKETS, blame
from ppd_wire.errors import EngineFailure, Failure


@contextmanager
def engine_errors(engine_id: str) -> Iterator[None]:
    """Turn what aiohttp and the sockets raise inside the block into an EngineFailure."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise engine_failure(engine_id, error) from error


def engine_failure(engine_id: str, error: aiohttp.ClientError | OSError) -> EngineFailure:
    """What a foreign error means to the caller: never reached (502), too late (504) or broken off (502); 503 where this
    process has no socket for it."""
    told = str(error) or type(error).__name__
    if blame(error) == "ours":
        return EngineFailure(
            f"{OUT_OF_SOCKETS} ({told})", reason=Failure.OUT_OF_SOCKETS, status=503, source="proxy"
        )  # fmt: skip
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | ConnectionRefusedError):
        return EngineFailure(f"engine {engine_id} cannot be reached: {told}", reason=Failure.ENGINE_UNREACHABLE)
    if isinstance(error, TimeoutError):
        message = f"engine {engine_id} did not answer in time"
        return EngineFailure(message, reason=Failure.ENGINE_TIMEOUT, status=504)
    return EngineFailure(f"engine {engine_id} broke off: {told}", reason=Failure.ENGINE_ERROR)
