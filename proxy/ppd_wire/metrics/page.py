"""An engine's `/metrics` page while its bytes arrive: what of it is worth parsing, within bounds.

A busy engine exports thousands of lines that nobody reads here, and parsing is what costs. No IO.
"""

from __future__ import annotations

import re
from typing import Final

from ppd_wire.metrics.scraped import is_wanted

MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""vLLM 0.32 writes some hundred kilobytes."""
MAX_LINE_BYTES: Final = 4096
MAX_LINES: Final = 5000
"""Of those that are read; an engine has some hundred, and one takes 20 microseconds to parse."""

_LINE: Final = re.compile(rb"^(?:vllm:|process_start)[^\n]*", re.MULTILINE)


class MetricsPage:
    """Takes the page piece by piece; the pieces may end anywhere. ValueError for a page beyond any engine's size."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._tail = b""
        self._size_bytes = 0

    def feed(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > MAX_PAGE_BYTES:
            raise ValueError(f"the page has more than {MAX_PAGE_BYTES} bytes")
        data = self._tail + data
        end = data.rfind(b"\n") + 1
        self._read(data[:end])
        self._tail = data[end:]
        if len(self._tail) > MAX_LINE_BYTES:
            raise ValueError(f"the page has a line of more than {MAX_LINE_BYTES} bytes")

    def text(self) -> str:
        """The lines that are read; call it once, at the page's end."""
        self._read(self._tail)
        return "".join(f"{line}\n" for line in self._lines)

    def _read(self, data: bytes) -> None:
        for match in _LINE.finditer(data):
            line = match[0].decode(errors="replace").rstrip("\r")
            if not is_wanted(line):
                continue
            if len(match[0]) > MAX_LINE_BYTES:
                raise ValueError(f"the page has a line of more than {MAX_LINE_BYTES} bytes: {line[:60]}...")
            if len(self._lines) == MAX_LINES:
                raise ValueError(f"the page has more than {MAX_LINES} lines of figures")
            self._lines.append(line)
