"""How much of other people's data the proxy holds in memory, all requests together, and whether more may come in.

One counter of bytes: request bodies from their first byte to the end of their request, whole answers of engines until
they are written, stream pieces that wait for their client, and what a client's connection has not taken yet. What is
already here is never held up for it, since that could wait for itself; new work is refused instead.
"""

from __future__ import annotations

from ppd_wire.errors import NoRoute, Refusal


class Buffered:
    """`unsent_bytes` is what connections to clients have not taken yet, as of the last look at them."""

    __slots__ = ("held_bytes", "limit_bytes", "unsent_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.unsent_bytes = 0

    @property
    def total_bytes(self) -> int:
        return self.held_bytes + self.unsent_bytes

    def see_unsent(self, size_bytes: int) -> None:
        self.unsent_bytes = size_bytes

    def hold(self, size_bytes: int) -> None:
        self.held_bytes += size_bytes

    def free(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes

    def check(self) -> None:
        """Raises NoRoute (503) where no more may come in."""
        if self.held_bytes + self.unsent_bytes > self.limit_bytes:
            raise NoRoute(
                f"the proxy holds {self.total_bytes} bytes of requests and answers and takes no more than "
                f"{self.limit_bytes} (--max-buffered-bytes); try again in a moment",
                reason=Refusal.BUFFERS_FULL,
            )
