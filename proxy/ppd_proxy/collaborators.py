"""What all requests share, and what one is when it arrives: the values that director and handlings pass on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from ppd_core.conversation.conversations import Conversations
from ppd_core.fleet.echoes import Echoes
from ppd_core.fleet.fleet import Change, Fleet
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_core.policy.distrust import Distrust, Pair, joined
from ppd_core.policy.plan import Mode, Route
from ppd_core.policy.prompt_pairs import PromptPairs
from ppd_core.policy.retry_budget import RetryBudget
from ppd_proxy.core.record import Record
from ppd_proxy.shadow.sample import Sample
from ppd_proxy.upstream.pool import Pool
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.headers import Headers
from ppd_wire.requests import generation as chat


class Observer(Protocol):
    """What telemetry wants to know."""

    def decided(self, mode: Mode, route: Route, reason: StrEnum) -> None: ...

    def finished(self, record: Record) -> None: ...

    def retried(self, *, is_allowed: bool) -> None:
        """A failed request is tried again, or is not because of too many others."""

    def prompts_compared(self, result: str) -> None: ...

    def prompts_differ(self, pair: Pair, why: str, *, is_distrusted: bool) -> None: ...

    def prompts_trusted(self, pairs: tuple[Pair, ...], why: str) -> None: ...

    def kv_released(self) -> None: ...

    def kv_stranded(self) -> None: ...

    def fleet_changed(self, changes: tuple[Change, ...]) -> None: ...


class ShadowSink(Protocol):
    """What takes samples of finished requests."""

    @property
    def asked_tops(self) -> int:
        """How many of the likeliest tokens the decode leg of a sampled request asks for."""

    def is_sampled(self, request_id: str) -> bool: ...

    def ask_no_tops(self, refused_by: str, count: int) -> None:
        """An engine refuses `count` of them: from now on none are asked for."""

    def takes(self, body_bytes: int) -> bool:
        """Whether it would take a sample of a request of that size now; one that it would not is counted as dropped."""

    def offer(self, sample: Sample) -> None: ...

    def broke(self, sample: Sample) -> None:
        """A sampled attempt whose logprobs were no numbers."""

    def skip(self, route: Route) -> None:
        """A sampled request whose answer cannot be held against a baseline's."""


class Call(msgspec.Struct, kw_only=True):
    """One generation request as it arrived. `path` is the plain path with its query; `kind` is None for endpoints that
    are never split; `named` are the headers by name; `client_key` separates clients: their key or authorization.
    `forwarded` are the lines that legs carry of them, by whether the engine is trusted, once they were made."""

    path: bytes
    dialect: Dialect
    body: bytes
    headers: Headers
    named: Mapping[bytes, bytes]
    client_key: str
    received_at: float
    forwarded: dict[bool, bytes] = msgspec.field(default_factory=dict)

    @property
    def kind(self) -> chat.Kind | None:
        """None for endpoints that are never split."""
        return self.dialect if self.dialect == "chat" or self.dialect == "completion" else None


@dataclass(slots=True, kw_only=True)
class Collaborators:
    """What all requests share. `mode` may change at any time and counts from the next request on, `distrust`
    from the next plan on. It is what two judges say: the guard (`guarded`) and the rule about `prompts`.

    `shadow` says which answers are to be compared with a baseline, and gets them.
    """

    mode: Mode
    fleet: Fleet
    load: Load
    readings: Readings
    conversations: Conversations
    pool: Pool
    observer: Observer
    loop: asyncio.AbstractEventLoop
    new_key: Callable[[], str]
    trust_direct: bool
    engine_authorization: bytes | None
    stripped_fields: frozenset[str]
    shadow: ShadowSink | None = None
    is_stopping: bool = False
    """The proxy was asked to stop; load balancers are told so."""
    distrust: Distrust = field(default_factory=Distrust)
    retry_budget: RetryBudget = field(default_factory=RetryBudget)
    guarded: Distrust = field(default_factory=Distrust)
    prompts: PromptPairs
    echoes: Echoes = field(default_factory=Echoes)

    def fleet_changed(self, changes: tuple[Change, ...]) -> None:
        """`changes` are those that `fleet` just gave back."""
        for change in changes:
            if change.what == "left":
                self.readings.forget(change.engine.id)
        self.observer.fleet_changed(changes)

    def join_distrust(self) -> None:
        """One of the judges has changed its mind."""
        self.distrust = joined(self.guarded, self.prompts.distrust)

    def trust_prompts(self, pairs: tuple[Pair, ...], why: str) -> None:
        """`pairs` are those that `prompts` just gave back."""
        if pairs:
            self.join_distrust()
            self.observer.prompts_trusted(pairs, why)
