"""The operator's endpoints: mode, conversations, engines. Loopback only, or with the admin key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from quart import Blueprint, Response, request

from ppd_core.fleet.address import parse_url
from ppd_core.fleet.engine import HANDOFFS, ROLES, Engine, HandoffName, Role
from ppd_core.policy.plan import MODES
from ppd_proxy.admission.access import check_admin
from ppd_proxy.collaborators import Collaborators
from ppd_proxy.config.sections import Auth
from ppd_wire.errors import BadRequest

Probe = Callable[[Engine], Awaitable[None]]

LISTED_CONVERSATIONS = 1000
"""Default of `GET /conversations?limit=`: the count is of all, the list of the latest used."""


class EngineRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /engines`. `ttl_s`: silent for longer means down; without it no heartbeats are expected.
    `ppd`: its connector takes direct requests (p2p_nccl only)."""

    url: str
    role: Role
    handoff: HandoffName | None = None
    zmq_address: str | None = None
    ttl_s: float | None = None
    ppd: bool | None = None


def serve_operators(blueprint: Blueprint, auth: Auth) -> None:
    """Its endpoints answer nobody else, and nobody keeps what they say. Who only registers has a key of its own."""

    @blueprint.before_request
    async def only_operators() -> None:
        client = request.scope.get("client")
        address = client[0] if client else None
        is_heartbeat = request.method == "POST" and request.path == "/engines"
        check_admin(auth, address, list(request.scope["headers"]), is_heartbeat=is_heartbeat)

    @blueprint.after_request
    async def uncached(response: Response) -> Response:
        response.headers["cache-control"] = "no-store"
        return response


def admin_blueprint(shared: Collaborators, auth: Auth, probe: Probe) -> Blueprint:
    admin = Blueprint("admin", __name__)
    serve_operators(admin, auth)

    @admin.get("/mode")
    async def get_mode() -> dict[str, str]:
        return {"mode": shared.mode}

    @admin.post("/mode/<mode>")
    async def set_mode(mode: str) -> dict[str, str]:
        for known in MODES:
            if mode == known:
                shared.mode = known
                return {"mode": known}
        raise BadRequest(f"mode: {mode!r} is not a mode; use one of {', '.join(MODES)}", param="mode")

    @admin.get("/conversations")
    async def conversations() -> dict[str, Any]:
        limit = request.args.get("limit", str(LISTED_CONVERSATIONS))
        if not limit.isdecimal():
            raise BadRequest(f"limit: {limit!r} is not a whole number of 0 or more", param="limit")
        store = shared.conversations
        store.expire(shared.loop.time())
        return {"count": store.count, "conversations": store.listing(shared.loop.time(), limit=int(limit))}

    @admin.post("/conversations/clear")
    async def clear() -> dict[str, int]:
        return {"cleared": shared.conversations.clear()}

    _add_engine_endpoints(admin, shared, probe)
    return admin


def _add_engine_endpoints(admin: Blueprint, shared: Collaborators, probe: Probe) -> None:
    @admin.get("/engines")
    async def engines() -> dict[str, Any]:
        return {
            "engines": [engine_record(shared, engine) for engine in shared.fleet.engines()],
            "distrusted_pairs": [
                {"prefill": pair[0], "decode": pair[1], "differing": differing, "compared": compared}
                for pair in shared.prompts.distrusted
                for differing, compared in [shared.prompts.differences(pair)]
            ],
        }

    @admin.post("/engines")
    async def register() -> dict[str, Any]:
        body = await request.get_data(cache=False)
        try:
            wanted = msgspec.json.decode(body, type=EngineRequest)
        except msgspec.DecodeError as error:
            optional = f'"handoff"?: {"|".join(HANDOFFS)}, "zmq_address"?, "ttl_s"?, "ppd"?'
            raise BadRequest(f'{error}; send {{"url", "role": {"|".join(ROLES)}, {optional}}}') from None
        now = shared.loop.time()
        changes = shared.fleet.register(
            url=wanted.url,
            role=wanted.role,
            handoff=wanted.handoff,
            zmq_address=wanted.zmq_address,
            ttl_s=wanted.ttl_s,
            is_ppd=wanted.ppd,
            now=now,
        )
        shared.fleet_changed(changes)
        for change in changes:
            if change.what == "joined":
                await probe(change.engine)
        return engine_record(shared, _find(shared, parse_url(wanted.url)[0]))

    @admin.delete("/engines/<path:engine_id>")
    async def remove(engine_id: str) -> dict[str, Any]:
        record = engine_record(shared, _find(shared, engine_id))
        shared.fleet_changed(shared.fleet.remove(engine_id))
        return record

    @admin.post("/engines/<path:engine_id>/drain")
    async def drain(engine_id: str) -> dict[str, Any]:
        _find(shared, engine_id)
        shared.fleet_changed(shared.fleet.drain(engine_id))
        return engine_record(shared, _find(shared, engine_id))


def _find(shared: Collaborators, engine_id: str) -> Engine:
    engine = shared.fleet.get(engine_id)
    if engine is None:
        known = ", ".join(each.id for each in shared.fleet.engines()) or "none"
        raise BadRequest(f"engine id: {engine_id!r} is not known; known engines: {known}", status=404, param="id")
    return engine


def engine_record(shared: Collaborators, engine: Engine) -> dict[str, Any]:
    """One engine as `GET /engines` shows it."""
    return {
        "id": engine.id,
        "url": engine.url,
        "role": engine.role,
        "handoff": engine.handoff,
        "state": engine.state,
        "source": engine.source,
        "zmq_address": engine.zmq_address,
        "inflight_requests": shared.load.requests.get(engine.id, 0),
        "inflight_tokens": shared.load.tokens.get(engine.id, 0),
    }
