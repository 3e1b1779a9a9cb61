"""The engines as operators see and change them. Loopback only, or with the admin key; heartbeats with a key of their
own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from quart import Blueprint, request

from ppd_core.fleet.address import parse_url
from ppd_core.fleet.engine import HANDOFFS, ROLES, Engine, HandoffName, Role
from ppd_core.fleet.fleet import Change, Fleet
from ppd_core.fleet.load import Load
from ppd_core.policy.prompt_pairs import PromptPairs
from ppd_proxy.config.sections import Auth
from ppd_proxy.server.admin import Clock, serve_operators
from ppd_wire.errors import BadRequest


class EngineRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /engines`. `ttl_s`: silent for longer means down; without it no heartbeats are expected.
    `ppd`: its connector takes direct requests (p2p_nccl only)."""

    url: str
    role: Role
    handoff: HandoffName | None = None
    zmq_address: str | None = None
    ttl_s: float | None = None
    ppd: bool | None = None


class EngineDesk:
    """`on_changes` is told what the fleet gave back; `probe` asks one engine at once whether it is healthy: a new one
    need not wait for its turn."""

    def __init__(
        self,
        fleet: Fleet,
        load: Load,
        prompts: PromptPairs,
        clock: Clock,
        *,
        on_changes: Callable[[tuple[Change, ...]], None],
        probe: Callable[[Engine], Awaitable[None]],
    ) -> None:
        self._fleet = fleet
        self._load = load
        self._prompts = prompts
        self._clock = clock
        self._on_changes = on_changes
        self._probe = probe

    def listing(self) -> dict[str, Any]:
        return {
            "engines": [self._record(engine) for engine in self._fleet.engines()],
            "distrusted_pairs": [
                {"prefill": pair[0], "decode": pair[1], "differing": differing, "compared": compared}
                for pair in self._prompts.distrusted
                for differing, compared in [self._prompts.differences(pair)]
            ],
        }

    async def register(self, body: bytes) -> dict[str, Any]:
        """Raises BadRequest."""
        try:
            wanted = msgspec.json.decode(body, type=EngineRequest)
        except msgspec.DecodeError as error:
            optional = f'"handoff"?: {"|".join(HANDOFFS)}, "zmq_address"?, "ttl_s"?, "ppd"?'
            raise BadRequest(f'{error}; send {{"url", "role": {"|".join(ROLES)}, {optional}}}') from None
        changes = self._fleet.register(
            url=wanted.url,
            role=wanted.role,
            handoff=wanted.handoff,
            zmq_address=wanted.zmq_address,
            ttl_s=wanted.ttl_s,
            is_ppd=wanted.ppd,
            now=self._clock(),
        )
        self._on_changes(changes)
        for change in changes:
            if change.what == "joined":
                await self._probe(change.engine)
        return self._record(self._find(parse_url(wanted.url)[0]))

    def remove(self, engine_id: str) -> dict[str, Any]:
        record = self._record(self._find(engine_id))
        self._on_changes(self._fleet.remove(engine_id))
        return record

    def drain(self, engine_id: str) -> dict[str, Any]:
        self._find(engine_id)
        self._on_changes(self._fleet.drain(engine_id))
        return self._record(self._find(engine_id))

    def _find(self, engine_id: str) -> Engine:
        engine = self._fleet.get(engine_id)
        if engine is None:
            known = ", ".join(each.id for each in self._fleet.engines()) or "none"
            raise BadRequest(f"engine id: {engine_id!r} is not known; known engines: {known}", status=404, param="id")
        return engine

    def _record(self, engine: Engine) -> dict[str, Any]:
        return {
            "id": engine.id,
            "url": engine.url,
            "role": engine.role,
            "handoff": engine.handoff,
            "state": engine.state,
            "source": engine.source,
            "zmq_address": engine.zmq_address,
            "inflight_requests": self._load.requests.get(engine.id, 0),
            "inflight_tokens": self._load.tokens.get(engine.id, 0),
        }


def engines_blueprint(desk: EngineDesk, auth: Auth) -> Blueprint:
    blueprint = Blueprint("engines", __name__)
    serve_operators(blueprint, auth)

    @blueprint.get("/engines")
    async def listing() -> dict[str, Any]:
        return desk.listing()

    @blueprint.post("/engines")
    async def register() -> dict[str, Any]:
        return await desk.register(cast("bytes", await request.get_data(cache=False)))

    @blueprint.delete("/engines/<path:engine_id>")
    async def remove(engine_id: str) -> dict[str, Any]:
        return desk.remove(engine_id)

    @blueprint.post("/engines/<path:engine_id>/drain")
    async def drain(engine_id: str) -> dict[str, Any]:
        return desk.drain(engine_id)

    return blueprint
