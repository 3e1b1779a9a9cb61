"""The seam between transfers and an engine's KV cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ppd_connector.geometry import Geometry


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
