"""The Quart application: everything that is not the data path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from quart import Blueprint, Quart, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ppd_core.fleet.fleet import Fleet
from ppd_core.handoff.registry import HANDOFFS
from ppd_proxy.control import Control
from ppd_proxy.server.noting import note_refused
from ppd_proxy.server.render import error_body, error_headers, internal_error, too_large
from ppd_wire.errors import BadRequest, Failure, ProxyError

_SHOWN_CHARS = 200


def make_app(
    blueprints: Iterable[Blueprint], *, control: Control, fleet: Fleet, registry: CollectorRegistry, max_body_bytes: int
) -> Quart:
    """`blueprints` are the endpoints by subject. Those that say how the proxy is itself are here."""

    app = Quart("ppd_proxy", static_folder=None)
    app.url_map.merge_slashes = False  # `//mode` is 404 like any other unknown path, not a redirect
    # Quart's own limits cut large bodies (16 MiB) and long generations (60 s).
    app.config.update(MAX_CONTENT_LENGTH=max_body_bytes, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> tuple[dict[str, object], int]:
        routes = ready_routes(fleet)
        is_ready = bool(routes) and not control.is_stopping
        state: dict[str, object] = {"ready": is_ready, "routes": routes}
        if control.is_stopping:
            state["reason"] = Failure.STOPPING
        return state, 200 if is_ready else 503

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @app.errorhandler(ProxyError)
    async def proxy_error(error: ProxyError) -> Response:
        return _render(error)

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        response = _render(_ours(error, max_body_bytes))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["allow"] = ", ".join(sorted(error.valid_methods))
        return response

    return app


def _ours(error: HTTPException, max_body_bytes: int) -> ProxyError:
    """What the framework found wrong, in our words."""
    path = request.path[:_SHOWN_CHARS]
    match error.code:
        case 404:
            return BadRequest(f"{path!r} is no endpoint of this proxy", status=404)
        case 405:
            methods = error.valid_methods if isinstance(error, MethodNotAllowed) else None
            takes = " or ".join(sorted(set(methods or ()) - {"HEAD", "OPTIONS"})) or "another method"
            return BadRequest(f"{path} takes {takes}, not {request.method}", status=405)
        case 413:
            return too_large(max_body_bytes)
        case int(code) if code < 500:
            return BadRequest(error.description or error.name, status=code)
    return internal_error()


def ready_routes(fleet: Fleet) -> list[str]:
    """The routes that a first turn can take now."""
    view = fleet.view
    routes = []
    if any(HANDOFFS[decode.handoff].can_pair(each, decode) for decode in view.decode for each in view.prefill):
        routes.append("pd")
    if view.aggregated:
        routes.append("aggregated")
    return routes


def _render(error: ProxyError) -> Response:
    note_refused(cast("Any", request.scope), error)
    response = Response(error_body(error), status=error.status)
    for name, value in error_headers(error):
        response.headers[name.decode()] = value.decode()
    return response
