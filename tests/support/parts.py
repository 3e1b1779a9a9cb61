"""The pure parts that serve requests, put together as the runtime does it, around an observer that remembers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.support.steps import run

from ppd_core.conversation.conversations import Conversations
from ppd_core.fleet.echoes import Echoes
from ppd_core.fleet.engine import Role
from ppd_core.fleet.fleet import Fleet
from ppd_core.fleet.load import Load
from ppd_core.policy.plan import Mode
from ppd_core.policy.prompt_pairs import PromptPairs
from ppd_proxy.control import Control
from ppd_proxy.request.exchange import Exchange
from ppd_proxy.request.legs import Legs
from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.request.planner import Planner
from ppd_proxy.request.prompt_watch import PromptWatch
from ppd_proxy.request.reader import Reader
from ppd_proxy.request.remember import Memory
from ppd_proxy.request.request import Call, Envelope, Request
from ppd_proxy.request.serving import Serving
from ppd_wire.dialects.dialects import Dialect, HandedOver, read_whole
from ppd_wire.requests.asked import NOTHING

PD: tuple[tuple[str, Role], ...] = (("p1", "prefill"), ("d1", "decode"))
ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}
"""Of a decode leg, whole."""


@dataclass
class Answered:
    """A leg, as far as its answer goes."""

    kind: str = "decode"
    status: int = 200
    body: bytes = b""
    headers: list = field(default_factory=list)
    is_stream: bool = False
    relay: Any = None
    prefilled: HandedOver | None = None

    @property
    def answer(self):
        return read_whole("chat", self.body, NOTHING) if self.status == 200 else None


def answering(answer=ANSWER, **facts):
    return Answered(body=json.dumps(answer).encode(), **facts)


class Remembering:
    """An observer: every call by name, with its arguments."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: self.told.append((name, *args, *named.values()))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for told, *arguments in self.told if told == name]


class Parts:
    """The engines (`name:8000`) are up; `PD` unless others are named. `now` is the time; `sampled` whether every
    request is, and with how many of the likeliest tokens."""

    def __init__(self, *engines: tuple[str, Role], mode: Mode = "ppd", stripped: frozenset[str] = frozenset()) -> None:
        self.now = 0.0
        self.sampled = False
        self.asked_tops = 0
        self.observer = Remembering()
        self.fleet, self.load = Fleet(default_handoff="nixl"), Load()
        for name, role in engines or PD:
            self.fleet.add_static(f"http://{name}:8000", role, self.now)
            self.fleet.probed(f"{name}:8000", True, self.now)
        self.control = Control(mode, PromptPairs("base"))
        self.conversations = Conversations(max_conversations=100, ttl_s=1000.0)
        self.echoes = Echoes()
        self.planner = Planner(
            self.fleet,
            self.load,
            self.control,
            self.clock,
            on_retry=self.observer.retried,
            on_changes=self.observer.fleet_changed,
            give_up=self.observer.gave_up,
        )
        self.memory = Memory(self.conversations, self.clock)
        self.reader = Reader(self.memory, lambda _: self.sampled, stripped)
        self.watch = PromptWatch(self.control, self.observer)
        keys = count(1)
        self.serving = Serving(
            self.planner,
            Legs(self.echoes, b"Bearer engine"),
            self.watch,
            self.memory,
            self,
            self.observer,
            lambda: f"{next(keys):032x}",
        )

    def clock(self) -> float:
        return self.now

    def ask_no_tops(self, refused_by: str, count: int) -> None:
        self.asked_tops = 0
        self.observer.asked_no_tops(refused_by, count)

    def begin(self, call: Call) -> Ongoing:
        return self.serving.begin(call, Exchange(None), lambda error: None)

    def read(self, body: bytes | dict[str, Any], dialect: Dialect = "chat", **named: str) -> Ongoing:
        """A request that was read, before its first plan. Raises BadRequest."""
        ongoing = self.begin(make_call(body, dialect, **named))
        read = self.reader.read(ongoing.call, ongoing.record.request_id)
        ongoing.request = read if isinstance(read, Request) else run(read)[0]
        return ongoing


def make_call(body: bytes | dict[str, Any], dialect: Dialect = "chat", path: bytes = b"", **named: str) -> Call:
    """`named` are headers, underscores for their dashes."""
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    path = path or {"chat": b"/v1/chat/completions", "completion": b"/v1/completions"}.get(dialect, b"/v1/messages")
    envelope = Envelope(
        path=path,
        endpoint=path.partition(b"?")[0],
        dialect=dialect,
        headers=headers,
        named=dict(headers),
        client_key="",
    )
    return Call(envelope, body if isinstance(body, bytes) else json.dumps(body).encode(), 0.0)
