"""Values as strict JSON can say them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec


def to_json(document: Any, encoding: str = "utf-8") -> str:
    """Strict JSON, indented: what is no number (NaN, infinities) becomes null. Text that the encoding does not have
    (lone surrogates in UTF-8) is escaped."""
    finite = plain(msgspec.to_builtins(document))
    text = json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(finite, indent=2, ensure_ascii=True, allow_nan=False)
    return text


def plain(value: Any) -> Any:
    """As JSON can say it: no NaN and no infinity, bytes as text, all names texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
