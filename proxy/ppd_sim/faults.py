"""Scripted faults: which request goes wrong, and how."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

FaultKind = Literal[
    "status", "hang", "drop", "delay", "die_after", "error_after", "stall_after", "truncate_after", "corrupt", "kill"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to go wrong and the requests it hits.

    kind: `status` answers `status` with `body`; `hang` never answers; `drop` closes the connection before the answer;
    `delay` waits `delay_s` first; `die_after`, `error_after`, `stall_after`, `truncate_after` act once `chunks` content
    chunks are out (0 = right after the role chunk): close the connection, send vLLM's error event and `[DONE]`, send
    nothing more, end the stream without `[DONE]`; `corrupt` answers as if the KV cache were damaged; `kill` ends the
    engine. Of a JSON answer `die_after` and `truncate_after` send half, `error_after` is a 500, `stall_after` hangs.

    A request is hit when its path starts with `path`, it is the `nth` such request (from 1; None = any), and a seeded
    draw is below `probability`; at most `times` requests are hit (None = no limit).
    """

    kind: FaultKind
    path: str = "/v1/"
    nth: int | None = None
    times: int | None = None
    probability: float = 1.0
    status: int = 500
    body: dict[str, Any] | None = None
    chunks: int = 0
    delay_s: float = 0.0
    message: str = "Internal server error"

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"kind: {self.kind!r} is not one of {', '.join(get_args(FaultKind))}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability: {self.probability!r} must be in 0..1")
        if not 100 <= self.status <= 599:
            raise ValueError(f"status: {self.status!r} must be an HTTP status")


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    hits: int = 0


class Faults:
    """The faults of one engine, tried in the order they were added; the first that hits wins."""

    def __init__(self, seed: int = 0) -> None:
        self._armed: list[_Armed] = []
        self._random = random.Random(seed)

    def add(self, *faults: Fault) -> None:
        self._armed.extend(_Armed(fault) for fault in faults)

    def clear(self) -> None:
        self._armed.clear()

    def hits(self) -> int:
        return sum(armed.hits for armed in self._armed)

    def match(self, path: str) -> Fault | None:
        """The fault that hits this request; every fault whose path fits counts the request."""
        chosen: Fault | None = None
        for armed in self._armed:
            fault = armed.fault
            if not path.startswith(fault.path):
                continue
            armed.seen += 1
            if chosen is not None or (fault.times is not None and armed.hits >= fault.times):
                continue
            if fault.nth is not None and armed.seen != fault.nth:
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            armed.hits += 1
            chosen = fault
        return chosen


def parse_faults(body: bytes) -> list[Fault]:
    """Faults from `{"faults": [{...}]}`, a list or one object; `ValueError` names what is wrong."""
    try:
        value = msgspec.json.decode(body)
        if isinstance(value, dict) and "faults" in value:
            value = value["faults"]
        several = value if isinstance(value, list) else [value]
        for one in several:
            if not isinstance(one, dict):
                continue
            if one.get("kind") not in get_args(FaultKind):
                raise ValueError(f"kind: {one.get('kind')!r} is not one of {', '.join(get_args(FaultKind))}")
            unknown = sorted(set(one) - set(Fault.__dataclass_fields__))
            if unknown:
                raise ValueError(
                    f"unknown field {unknown[0]!r}, known ones are {', '.join(Fault.__dataclass_fields__)}"
                )
        return msgspec.convert(several, list[Fault])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
