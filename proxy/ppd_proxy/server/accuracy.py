"""What operators ask and order of the accuracy check. Loopback only, or with the admin key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quart import Blueprint, request

from ppd_core.policy.distrust import Pair
from ppd_core.policy.guard import pair_scope, scope_pair
from ppd_proxy.config.sections import Auth
from ppd_proxy.control import Control
from ppd_proxy.server.admin import serve_operators
from ppd_proxy.shadow.service import Accuracy
from ppd_wire.errors import BadRequest

LISTED_SAMPLES = 100
MAX_LISTED_SAMPLES = 1000
CALIBRATION_SAMPLES = 300


OnTrusted = Callable[[tuple[Pair, ...], str], None]
"""Told which pairs are trusted again, and why."""


def accuracy_blueprint(accuracy: Accuracy | None, auth: Auth, control: Control, on_trusted: OnTrusted) -> Blueprint:
    """Answers 404 and says how to switch it on where there is no baseline; what the rule about prompts took out of use
    can be trusted again without one."""
    blueprint = Blueprint("accuracy", __name__, url_prefix="/accuracy")
    serve_operators(blueprint, auth)

    def running() -> Accuracy:
        if accuracy is None:
            raise BadRequest("accuracy is not checked: start the proxy with --baseline URL", status=404)
        return accuracy

    @blueprint.get("")
    async def summary() -> dict[str, Any]:
        return running().summary()

    @blueprint.get("/noise")
    async def noise() -> dict[str, Any]:
        return {"noise": running().noise()}

    @blueprint.get("/samples")
    async def samples() -> dict[str, Any]:
        listed = await running().samples(
            _count("limit", LISTED_SAMPLES, MAX_LISTED_SAMPLES),
            outcome=request.args.get("outcome"),
            route=request.args.get("route"),
            before=_count("before", 1, 2**62) if "before" in request.args else None,
        )
        return {"samples": listed}

    @blueprint.get("/samples/<path:sample_id>")
    async def sample(sample_id: str) -> dict[str, Any]:
        return await running().sample(sample_id)

    @blueprint.post("/rate/<rate>")
    async def set_rate(rate: str) -> dict[str, float]:
        return {"rate": running().set_rate(rate)}

    @blueprint.post("/calibrate")
    async def calibrate() -> dict[str, Any]:
        return {"ordered": running().calibrate(_count("samples", CALIBRATION_SAMPLES, 100_000))}

    @blueprint.post("/reset")
    async def reset() -> dict[str, Any]:
        return {"reset": running().reset(request.args.get("scope"))}

    @blueprint.post("/trust")
    async def trust() -> dict[str, Any]:
        scope = request.args.get("scope")
        actions = _trust_prompts(control, on_trusted, scope)
        if accuracy is not None and (scope is None or not actions or accuracy.is_distrusted(scope)):
            return {"trusted": [*actions, *accuracy.trust(scope)]}
        return {"trusted": actions or running().trust(scope)}

    return blueprint


def _trust_prompts(control: Control, on_trusted: OnTrusted, scope: str | None) -> list[dict[str, Any]]:
    """What the rule about prompts gives back, as actions of the guard's form."""
    try:
        pair = scope_pair(scope) if scope is not None else None
    except ValueError as error:
        raise BadRequest(str(error), param="scope") from None
    if scope is not None and pair is None:
        return []
    reason = "a person trusts it again"
    pairs = control.trust_prompts(pair)
    on_trusted(pairs, reason)
    return [{"kind": "trust_pair", "scope": pair_scope(*each), "pair": list(each), "reason": reason} for each in pairs]


def _count(name: str, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise BadRequest(f"{name}: {text!r} is not a whole number from 1 to {most}", param=name)
    return int(text)

