"""How large a request's prompt is, for load accounting: what an engine renders, not what a client sends along."""

from __future__ import annotations

from ppd_wire.requests.generation import Fields, Generation
from ppd_wire.requests.opaque import Opaque

_PROMPT_FIELDS = frozenset(
    {"messages", "prompt", "tools", "documents", "prompt_embeds", "input", "instructions", "system"}
)
"""Rendered into the prompt, on any of the four generation endpoints."""


def prompt_size_bytes(request: Generation) -> int:
    """Bytes of JSON, or 4 per token id."""
    return 4 * len(request.prompt) if isinstance(request.prompt, list) else _size_bytes(request.fields)


def opaque_size_bytes(request: Opaque) -> int:
    """The same measure of a request that is not interpreted."""
    return _size_bytes(request.fields)


def _size_bytes(fields: Fields) -> int:
    size_bytes = 0
    for name, raw in fields.items():
        if name in _PROMPT_FIELDS:
            size_bytes += len(raw)
    return size_bytes
