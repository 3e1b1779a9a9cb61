"""The operator's endpoints: mode and conversations. Loopback only, or with the admin key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quart import Blueprint, Response, request

from ppd_core.conversation.conversations import Conversations
from ppd_core.policy.plan import MODES
from ppd_proxy.admission.access import check_admin
from ppd_proxy.config.sections import Auth
from ppd_proxy.control import Control
from ppd_wire.errors import BadRequest

Clock = Callable[[], float]

LISTED_CONVERSATIONS = 1000
"""Default of `GET /conversations?limit=`: the count is of all, the list of the latest used."""


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


def admin_blueprint(control: Control, conversations: Conversations, auth: Auth, clock: Clock) -> Blueprint:
    admin = Blueprint("admin", __name__)
    serve_operators(admin, auth)

    @admin.get("/mode")
    async def get_mode() -> dict[str, str]:
        return {"mode": control.mode}

    @admin.post("/mode/<mode>")
    async def set_mode(mode: str) -> dict[str, str]:
        for known in MODES:
            if mode == known:
                control.mode = known
                return {"mode": known}
        raise BadRequest(f"mode: {mode!r} is not a mode; use one of {', '.join(MODES)}", param="mode")

    @admin.get("/conversations")
    async def listed() -> dict[str, Any]:
        limit = request.args.get("limit", str(LISTED_CONVERSATIONS))
        if not limit.isdecimal():
            raise BadRequest(f"limit: {limit!r} is not a whole number of 0 or more", param="limit")
        now = clock()
        conversations.expire(now)
        return {"count": conversations.count, "conversations": conversations.listing(now, limit=int(limit))}

    @admin.post("/conversations/clear")
    async def clear() -> dict[str, int]:
        return {"cleared": conversations.clear()}

    return admin
