"""Which paths reach engines, and in which form: decoded once, held against a table, written anew. Pure.

What a client spelled in another way (`%63hat`, `..%2f..`) never travels on as it came: whoever decodes behind the proxy
could read another path than the proxy did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

PASSED_ON: Mapping[str, str] = MappingProxyType({
    "/v1/models": "GET",
    "/v1/models/<path:model>": "GET",
    "/version": "GET",
    "/v1/embeddings": "POST",
    "/tokenize": "POST",
    "/detokenize": "POST",
})  # fmt: skip
"""Endpoints that any live engine can answer, each with its method."""

_MODELS = "/v1/models/"
_SAFE = "/:@+,="
_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")


def passed_on(raw_path: bytes) -> str | None:
    """The path for the engine, percent-encoded where it must be; None for what is not in the table.

    A model's name may have slashes, also encoded ones (`org%2Fname`). It has no empty, `.` or `..` segment, no
    backslash, nothing that does not print, and no `%` once it is decoded: somebody would decode that a second time.
    """
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return None
    if path.startswith(_MODELS):
        return quote(path, safe=_SAFE) if _is_model(path.removeprefix(_MODELS)) else None
    return path if path in PASSED_ON else None


def with_query(path: bytes, query: bytes) -> bytes:
    """The request target. The query travels on as it came, but for bytes that no target may hold."""
    if not query:
        return path
    return path + b"?" + _UNPRINTABLE.sub(lambda byte: b"%%%02X" % ord(byte[0]), query)


def _is_model(name: str) -> bool:
    has_odd_segment = any(segment in ("", ".", "..") for segment in name.split("/"))
    return not has_odd_segment and name.isprintable() and "\\" not in name and "%" not in name
