"""Endpoints that any live engine can answer: what is asked goes there under its plain path, what it says comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import aiohttp
from quart import Blueprint, Response, request
from yarl import URL

from ppd_proxy.collaborators import Collaborators
from ppd_proxy.core.chat import parse_opaque
from ppd_proxy.core.headers import HOP_BY_HOP, is_credential
from ppd_proxy.core.types import Engine, Reason
from ppd_proxy.errors import BadRequest, EngineFailure, NoRoute
from ppd_proxy.policy.placement import least_loaded
from ppd_proxy.sections import Auth
from ppd_proxy.server.access import check_client
from ppd_proxy.server.noting import note_passed_on
from ppd_proxy.server.paths import PASSED_ON, passed_on, with_query
from ppd_proxy.upstream.client import engine_errors

_NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding", b"x-admin-key", b"x-request-id"}
_NOT_RETURNED = HOP_BY_HOP | {b"content-length", b"content-encoding", b"server", b"date"}


def pass_through_blueprint(shared: Collaborators, auth: Auth, session: aiohttp.ClientSession) -> Blueprint:
    blueprint = Blueprint("pass_through", __name__)

    async def relay() -> Response:
        check_client(auth, dict(request.scope["headers"]))
        target = _target()
        body = cast("bytes", await request.get_data(cache=False))
        if body:
            body, _ = parse_opaque(body)
        tried: frozenset[str] = frozenset()
        while True:
            engine = _choose(shared, tried)
            note_passed_on(cast("Any", request.scope), engine)
            try:
                return await _ask(shared, session, engine, target, body)
            except EngineFailure as failure:
                tried |= {engine.id}
                if failure.reason != Reason.ENGINE_UNREACHABLE or not _untried(shared, tried):
                    raise

    for path, method in PASSED_ON.items():
        blueprint.add_url_rule(
            path,
            endpoint=path,
            view_func=_without_arguments(relay),
            methods=[method],
            provide_automatic_options=False,
        )
    return blueprint


def _without_arguments(view: Callable[[], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Quart hands over the variable parts of a rule; `_target` reads the path itself."""

    async def handler(**_: str) -> Response:
        return await view()

    return handler


def _target() -> str:
    """What the engine is asked for: path and query. BadRequest(404 or 405) for what is not in the table."""
    scope = request.scope
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    path = passed_on(raw_path)
    if path is None:
        raise BadRequest(
            f"{scope['path']!r} is not passed on; a model's name has no empty, '.' or '..' segment, backslash, '%' or "
            "control character",
            status=404,
        )
    if request.method == "HEAD":  # werkzeug adds it to every GET
        raise BadRequest(f"{path} takes GET, not HEAD", status=405)
    return with_query(path.encode(), scope.get("query_string", b"")).decode()


def _untried(shared: Collaborators, tried: frozenset[str]) -> list[Engine]:
    view = shared.fleet.view
    return [engine for engine in (*view.aggregated, *view.decode, *view.prefill) if engine.id not in tried]


def _choose(shared: Collaborators, tried: frozenset[str]) -> Engine:
    engine = least_loaded(_untried(shared, tried), shared.load.tokens, b"")
    if engine is None:
        raise NoRoute("no engine is up", reason=Reason.NO_DECODE_ENGINE)
    return engine


async def _ask(
    shared: Collaborators, session: aiohttp.ClientSession, engine: Engine, target: str, body: bytes
) -> Response:
    """Ask one engine; its answer is streamed on."""
    scope = request.scope
    authorization = shared.engine_authorization if engine.is_trusted else None
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name not in _NOT_FORWARDED
        and not (authorization is not None and name in (b"authorization", b"x-api-key"))
        and (engine.is_trusted or not is_credential(name))
    ]
    headers.append(("x-request-id", shared.new_key()))
    if authorization is not None:
        headers.append(("authorization", authorization.decode("latin-1")))
    url = URL(engine.url + target, encoded=True)  # as it is written: aiohttp would decode and resolve it once more
    with engine_errors(engine.id):
        answer = await session.request(request.method, url, data=body or None, headers=headers, allow_redirects=False)

    async def chunks() -> AsyncIterator[bytes]:
        async with answer:
            async for chunk in answer.content.iter_any():
                yield chunk

    response = Response(chunks(), status=answer.status)
    response.headers.clear()
    for name, value in answer.headers.items():
        if name.lower().encode() not in _NOT_RETURNED:
            response.headers.add(name, value)
    return response
