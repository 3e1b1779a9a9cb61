"""One judged sample as a row of the journal: its columns, and how values become SQLite's and come back.

Does no IO. Lists of numbers are packed, little-endian: ids and ranks as uint32, floats as float32, which is what
engines tell log probabilities in. So NaN survives. SQLite knows no NaN; a column of single numbers holds the text
'nan' instead, which SQLite sorts above every number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import xxhash

from ppd_accuracy.verdicts.noise import Category

Storage = Literal["none", "hashes", "tokens", "text"]
STORAGES: tuple[Storage, ...] = ("none", "hashes", "tokens", "text")

APPLICATION_ID = 0x70706431
"""In the file's header: "ppd1". Tells our files from other programs' databases."""
SCHEMA_VERSION = 2
MAX_ERROR_CHARACTERS = 500


class SampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One judged sample. `at`: wall clock, Unix seconds. `timings`: milliseconds by name.

    Lists are by token of the answer, except `prompt_token_ids`; None in them comes back as NaN, in `ranks` as 0
    (vLLM counts ranks from 1). `replay` is what the baseline's own answer said.
    `error` is kept by every storage but `none`, so it must quote neither prompt nor answer.
    """

    sample_id: str
    at: float
    model: str
    route: str
    pair: str | None = None
    filled_by: tuple[str, ...] = ()
    turn: int = 1
    reason: str = ""
    method: Literal["score", "replay"]
    outcome: str
    category: Category | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    prompt_token_ids: Sequence[int] | None = None
    token_ids: Sequence[int] | None = None
    candidate_logprobs: Sequence[float | None] | None = None
    baseline_logprobs: Sequence[float | None] | None = None
    ranks: Sequence[int | None] | None = None
    margins: Sequence[float | None] | None = None
    max_delta: float | None = None
    mean_delta: float | None = None
    threshold: float | None = None
    noise_samples: int | None = None
    finish_reason: str | None = None
    replay: Mapping[str, Any] | None = None
    timings: Mapping[str, float] = {}
    transfer: Mapping[str, Any] | None = None
    spread: Mapping[str, Any] | None = None
    spec: Mapping[str, Any] | None = None
    body: bytes | None = None
    text: str | None = None
    error: str | None = None


# In the table's order: facts first, so that listing them never reads the long ones behind.
_FACTS: Mapping[str, str] = MappingProxyType(
    {
        "sample_id": "TEXT NOT NULL UNIQUE",
        "at": "REAL NOT NULL",
        "model": "TEXT NOT NULL",
        "route": "TEXT NOT NULL",
        "pair": "TEXT",
        "filled_by": "TEXT NOT NULL",
        "turn": "INTEGER NOT NULL",
        "reason": "TEXT NOT NULL",
        "method": "TEXT NOT NULL",
        "outcome": "TEXT NOT NULL",
        "category": "TEXT",
        "prompt_tokens": "INTEGER",
        "answer_tokens": "INTEGER",
        "max_delta": "REAL",
        "mean_delta": "REAL",
        "threshold": "REAL",
        "noise_samples": "INTEGER",
        "finish_reason": "TEXT",
        "timings": "TEXT NOT NULL",
        "transfer": "TEXT",
        "spec": "TEXT",
        "error": "TEXT",
        "prompt_hash": "TEXT",
        "answer_hash": "TEXT",
        "spread": "TEXT",
    }
)
_CONTENTS: Mapping[str, str] = MappingProxyType(
    {
        "prompt_token_ids": "BLOB",
        "token_ids": "BLOB",
        "candidate_logprobs": "BLOB",
        "baseline_logprobs": "BLOB",
        "ranks": "BLOB",
        "margins": "BLOB",
        "replay": "BLOB",
        "body": "BLOB",
        "text": "TEXT",
    }
)
_INTEGERS = ("prompt_token_ids", "token_ids", "ranks")
_FLOATS = ("candidate_logprobs", "baseline_logprobs", "margins")
_NUMBERS = ("max_delta", "mean_delta", "threshold")
_DICTS = ("timings", "transfer", "spec", "spread")
_ALL = tuple({**_FACTS, **_CONTENTS}.items())

_SCHEMA: tuple[str, ...] = (
    f"CREATE TABLE IF NOT EXISTS samples (seq INTEGER PRIMARY KEY, {', '.join(f'{n} {kind}' for n, kind in _ALL)})",
    "CREATE INDEX IF NOT EXISTS samples_by_at ON samples (at)",
    "CREATE INDEX IF NOT EXISTS samples_by_outcome ON samples (outcome)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_UPGRADES: Mapping[int, tuple[str, ...]] = MappingProxyType({1: ("ALTER TABLE samples ADD COLUMN spread TEXT",)})
"""From a schema's version to the next one."""
FACT_COLUMNS = ", ".join(("seq", *_FACTS))
ALL_COLUMNS = ", ".join(("seq", *_FACTS, *_CONTENTS))
INSERT = (
    f"INSERT OR REPLACE INTO samples ({', '.join(name for name, _ in _ALL)}) "
    f"VALUES ({', '.join(f':{name}' for name, _ in _ALL)})"
)


def is_known(version: int) -> bool:
    """Whether `statements` takes a file of that version over."""
    return version == SCHEMA_VERSION or version in _UPGRADES


def statements(version: int) -> list[str]:
    """What makes the schema of a file of that version (0: an empty one) ours; in one transaction."""
    upgrades = [] if version == 0 else [each for older in range(version, SCHEMA_VERSION) for each in _UPGRADES[older]]
    return [*upgrades, *_SCHEMA]


def without_text(row: SampleRow, storage: Storage) -> SampleRow:
    """The row without what `storage` does not keep and what is large."""
    if storage == "text" or (row.body is None and row.text is None):
        return row
    return msgspec.structs.replace(row, body=None, text=None)


def size_bytes(row: SampleRow) -> int:
    """Roughly what the row's long values take in memory."""
    lists = (getattr(row, name) for name in (*_INTEGERS, *_FLOATS))
    return len(row.body or b"") + len(row.text or "") + 32 * sum(len(values or ()) for values in lists)


def encode(row: SampleRow, storage: Storage) -> dict[str, Any]:
    """The columns. ValueError, OverflowError or struct.error for numbers that do not fit."""
    columns: dict[str, Any] = {name: getattr(row, name, None) for name, _ in _ALL}
    columns["filled_by"] = _json(row.filled_by)
    for name in _DICTS:
        columns[name] = None if columns[name] is None else _json(dict(columns[name]))
    for name in _NUMBERS:
        if columns[name] is not None and math.isnan(columns[name]):
            columns[name] = "nan"
    if row.error is not None:
        columns["error"] = readable(row.error[:MAX_ERROR_CHARACTERS])
    columns["prompt_hash"], columns["answer_hash"] = token_hash(row.prompt_token_ids), token_hash(row.token_ids)
    columns["replay"] = None if row.replay is None else msgspec.msgpack.encode(_kept_replay(row.replay, storage))
    for names, kind, unknown in ((_INTEGERS, "I", 0), (_FLOATS, "f", math.nan)):
        for name in names:
            columns[name] = _packed(columns[name], kind, unknown) if storage in ("tokens", "text") else None
    columns["body"] = row.body if storage == "text" else None
    columns["text"] = readable(row.text) if storage == "text" and row.text is not None else None
    return columns


def decode(row: dict[str, Any]) -> dict[str, Any]:
    """Turn what `encode` made back, in place: lists of numbers, dicts, NaN; `body` stays bytes."""
    for name in ("filled_by", *_DICTS):
        if row[name] is not None:
            row[name] = msgspec.json.decode(row[name])
    for name in _NUMBERS:
        row[name] = None if row[name] is None else float(row[name])
    for names, kind in ((_INTEGERS, "I"), (_FLOATS, "f")):
        for name in names:
            if row.get(name) is not None:
                row[name] = list(struct.unpack(f"<{len(row[name]) // 4}{kind}", row[name]))
    if row.get("replay") is not None:
        row["replay"] = msgspec.msgpack.decode(row["replay"])
    return row


def token_hash(token_ids: Sequence[int] | None) -> str | None:
    """xxh3 (128 bits, hexadecimal) of the ids as packed here. Tells equal from different; it hides nothing short."""
    return None if token_ids is None else xxhash.xxh3_128_hexdigest(struct.pack(f"<{len(token_ids)}I", *token_ids))


def _packed(values: Sequence[float | None] | None, kind: str, unknown: float) -> bytes | None:
    if values is None:
        return None
    return struct.pack(f"<{len(values)}{kind}", *(unknown if value is None else value for value in values))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def readable(text: str) -> str:
    """Half a surrogate pair, which JSON may carry, is no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _kept_replay(replay: Mapping[str, Any], storage: Storage) -> dict[str, Any]:
    """Numbers and `finish_reason` always, lists of numbers with the tokens, everything with the text."""
    if storage == "text":
        return dict(replay)
    kept = {
        name: value
        for name, value in replay.items()
        if value is None
        or isinstance(value, bool | int | float)
        or name == "finish_reason"
        or (storage == "tokens" and _is_numeric(value))
    }
    if storage == "hashes" and (token_ids := replay.get("token_ids")) is not None:
        kept["token_hash"] = token_hash(token_ids)
    return kept


def _is_numeric(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)
