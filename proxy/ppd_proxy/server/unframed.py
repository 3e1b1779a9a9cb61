"""Answers to clients of HTTP/1.0, which knows no chunks: a body whose length is not told ends with its connection.

Such a client takes the lines of chunks for text. Its connection is reset where an answer ends too early, so that it
does not take a part for the whole.
"""

from __future__ import annotations

import socket
import struct

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_RESET = struct.pack("ii", 1, 0)


class UnframedCycle(RequestResponseCycle):
    is_unframed = False
    """The answer's end is the connection's."""

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            if not any(name == b"content-length" for name, _ in message.get("headers", ())):
                self.is_unframed, self.chunked_encoding = True, False
        elif self.is_unframed and message["type"] == "http.response.body":
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    @property
    def is_cut(self) -> bool:
        """Closing the connection now would make an end of what is none."""
        return self.is_unframed and not self.response_complete


def reset(client: socket.socket) -> None:
    """Closing the connection resets it from now on."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
