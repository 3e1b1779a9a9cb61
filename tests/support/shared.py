"""What all requests share, of real parts, around an observer that remembers what it was told."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

from ppd_core.conversation.conversations import Conversations
from ppd_core.fleet.engine import Role
from ppd_core.fleet.fleet import Fleet
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_core.policy.prompt_pairs import PromptPairs
from ppd_proxy.collaborators import Call, Collaborators
from ppd_proxy.upstream.pool import Pool
from ppd_wire.dialects.dialects import Dialect

PD: tuple[tuple[str, Role], ...] = (("p1", "prefill"), ("d1", "decode"))


class Remembering:
    """An observer: every call by name, with its arguments."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: self.told.append((name, *args, *named.values()))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for told, *arguments in self.told if told == name]


def make_shared(*engines: tuple[str, Role], **more: Any) -> Collaborators:
    """Inside a running loop. The engines (`name:8000`) are up; `PD` unless others are named."""
    loop = asyncio.get_running_loop()
    fleet, load, keys = Fleet(default_handoff="nixl"), Load(), count(1)
    for name, role in engines or PD:
        fleet.add_static(f"http://{name}:8000", role, loop.time())
        fleet.probed(f"{name}:8000", True, loop.time())
    facts: dict[str, Any] = {
        "mode": "ppd", "trust_direct": False, "engine_authorization": None, "stripped_fields": frozenset(), **more,
    }  # fmt: skip
    return Collaborators(
        fleet=fleet,
        load=load,
        readings=Readings(engines=fleet.engines, load=load),
        conversations=Conversations(max_conversations=100, ttl_s=1000.0),
        pool=Pool(loop, connect_timeout_s=1.0),
        observer=Remembering(),
        loop=loop,
        new_key=lambda: f"{next(keys):032x}",
        prompts=PromptPairs("base"),
        **facts,
    )


def make_call(body: bytes | dict[str, Any], dialect: Dialect = "chat", path: bytes = b"", **named: str) -> Call:
    """`named` are headers, underscores for their dashes."""
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    return Call(
        path=path or {"chat": b"/v1/chat/completions", "completion": b"/v1/completions"}.get(dialect, b"/v1/messages"),
        dialect=dialect,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers=headers,
        named=dict(headers),
        client_key="",
        received_at=0.0,
    )
