"""The seam between transfers and an engine's KV cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ppd_connector.geometry import Geometry


class Payload(Protocol):
    """One layer's KV on its way: a memoryview of bytes, or memory of an accelerator that only its store can read."""

    @property
    def nbytes(self) -> int: ...


class Store(Protocol):
    """A paged KV cache of one rank. Payloads are laid out as `geometry` says; tokens count from the prompt's first."""

    @property
    def geometry(self) -> Geometry: ...

    @property
    def block_tokens(self) -> int: ...

    def read(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Callable[[], memoryview]:
        """Start copying tokens out of their blocks; the result waits for the copy and gives the payload.

        The blocks may be overwritten as soon as `read` has returned, by work that is ordered after it.
        """
        ...

    def write(
        self, layer: int, blocks: Sequence[int], first_token: int, end_token: int, payload: memoryview, *, at_token: int
    ) -> None:
        """Put tokens into their blocks; `payload` holds tokens from `at_token` on, at least up to `end_token`."""
        ...

    def flush(self) -> None:
        """Wait until everything written is in the cache."""
        ...


class DeviceStore(Store, Protocol):
    """A store on an accelerator whose payloads need not leave it."""

    def read_device(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Payload:
        """As `read`, without leaving the device; does not wait. MemoryError when the device has no room for it."""
        ...

    def write_device(
        self, layer: int, blocks: Sequence[int], first_token: int, end_token: int, payload: Payload, *, at_token: int
    ) -> None:
        """As `write`. The payload must not be changed, or dropped, before `flush`."""
        ...

    def to_host(self, payload: Payload) -> memoryview:
        """A copy in host memory; waits for it."""
        ...
