"""Endpoints that any live engine can answer: what is asked goes there under its plain path, what it says comes back.

None of these endpoints changes anything, so what failed before the client got a byte goes to the next engine, within
the budget of all retries. A GET asks what every engine knows at once: it waits a few seconds for each engine and goes
on to the next. A POST computes something: it has as long as a generation has to its first token, and is not sent again
when that is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import aiohttp
from quart import Blueprint, Response, request
from yarl import URL

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Fleet
from ppd_core.fleet.load import Load, Reservation
from ppd_core.policy.placement import load_score
from ppd_core.policy.plan import DecisionReason
from ppd_core.policy.retry_budget import RetryBudget
from ppd_proxy.admission.access import check_client
from ppd_proxy.config.sections import Auth, Limits
from ppd_proxy.request.planner import Retrying
from ppd_proxy.server.noting import note_passed_on
from ppd_proxy.server.paths import PASSED_ON, passed_on, with_query
from ppd_proxy.upstream.client import engine_errors
from ppd_wire.dialects.typed_events import read_object
from ppd_wire.errors import BadRequest, EngineFailure, Failure, NoRoute
from ppd_wire.headers import HOP_BY_HOP, is_credential, named_hops
from ppd_wire.json.stepwise import Steps
from ppd_wire.requests.generation import is_absent
from ppd_wire.requests.prompt_size import opaque_size_bytes
from ppd_wire.requests.stepped import parse_opaque

T = TypeVar("T")

_NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding", b"x-admin-key", b"x-request-id"}
_NOT_RETURNED = HOP_BY_HOP | {b"content-length", b"content-encoding", b"server", b"date"}
GET_LIMIT_S = 5.0
"""How long one engine may take for the whole answer to a GET ..."""
GETS_LIMIT_S = 20.0
"""... and all that are tried for it together."""
_BYTES_PER_TOKEN = 4


class Engines:
    """Who can be asked, and how often in all. `clock` gives the seconds that load and budget know."""

    def __init__(
        self,
        fleet: Fleet,
        load: Load,
        budget: RetryBudget,
        clock: Callable[[], float],
        *,
        on_retry: Retrying,
    ) -> None:
        self.clock = clock
        self._fleet = fleet
        self._load = load
        self._budget = budget
        self._on_retry = on_retry

    def note_request(self) -> None:
        self._budget.note_request(self.clock())

    def choose(self, tried: frozenset[str]) -> Engine:
        """The least loaded that was not tried; raises NoRoute where there is none."""
        score = load_score(self._load.weighed(self.clock()), b"", shun=self._fleet.view.unhealthy)
        engine = min(self._untried(tried), key=score, default=None)
        if engine is None:
            raise NoRoute("no engine is up", reason=DecisionReason.NO_DECODE_ENGINE)
        return engine

    def goes_on(self, tried: frozenset[str]) -> bool:
        """Whether what failed is tried again."""
        if not self._untried(tried):
            return False
        is_allowed = self._budget.take(self.clock())
        self._on_retry(is_allowed=is_allowed)
        return is_allowed

    def reserve(self, engine: Engine, tokens: int) -> Reservation:
        return self._load.reserve(engine.id, tokens)

    def note_failed(self, reservation: Reservation) -> None:
        self._load.note_failed(reservation.engine_id, reservation.tokens, self.clock())

    def _untried(self, tried: frozenset[str]) -> list[Engine]:
        view = self._fleet.view
        return [engine for engine in (*view.aggregated, *view.decode, *view.prefill) if engine.id not in tried]


class Asking:
    """How they are asked. `engine_authorization` replaces the clients' own at engines that are trusted; `new_key` gives
    each request an id; a GET's answer has at most `max_answer_bytes`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        new_key: Callable[[], str],
        *,
        engine_authorization: bytes | None,
        max_answer_bytes: int,
    ) -> None:
        self.session = session
        self.max_answer_bytes = max_answer_bytes
        self._new_key = new_key
        self._engine_authorization = engine_authorization

    def headers(self, engine: Engine) -> list[tuple[str, str]]:
        authorization = self._engine_authorization if engine.is_trusted else None
        sent = list(request.scope["headers"])
        hops = named_hops(sent)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in sent
            if name not in _NOT_FORWARDED
            and name not in hops
            and not (authorization is not None and name in (b"authorization", b"x-api-key"))
            and (engine.is_trusted or not is_credential(name))
        ]
        headers.append(("x-request-id", self._new_key()))
        if authorization is not None:
            headers.append(("authorization", authorization.decode("latin-1")))
        return headers


def pass_through_blueprint(engines: Engines, asking: Asking, auth: Auth, limits: Limits) -> Blueprint:
    blueprint = Blueprint("pass_through", __name__)

    async def relay() -> Response:
        check_client(auth, dict(request.scope["headers"]))
        target = _target()
        body = cast("bytes", await request.get_data(cache=False))
        tokens = 1
        if body:
            parsed = await _in_steps(parse_opaque(body, frozenset()))
            body = parsed.body
            tokens += opaque_size_bytes(parsed) // _BYTES_PER_TOKEN
        is_get = request.method == "GET"
        ends_at = engines.clock() + GETS_LIMIT_S
        engines.note_request()
        tried: frozenset[str] = frozenset()
        while True:
            engine = engines.choose(tried)
            note_passed_on(cast("Any", request.scope), engine)
            tried |= {engine.id}
            left_s = min(GET_LIMIT_S, ends_at - engines.clock()) if is_get else limits.first_token_timeout_s
            asked = _Asked(asking, engines, engine, tokens)
            # To aiohttp 0 is no limit.
            timeout = aiohttp.ClientTimeout(total=max(0.001, left_s), sock_connect=limits.connect_timeout_s)
            try:
                answer = await asked.answer(target, body, timeout)
            except EngineFailure as failure:
                is_over = failure.reason == Failure.ENGINE_TIMEOUT and (not is_get or engines.clock() >= ends_at)
                if is_over or not engines.goes_on(tried):
                    raise
                continue
            if answer.status < 500 or not engines.goes_on(tried):
                return _response(asked, answer)
            asked.drop()

    for path, method in PASSED_ON.items():
        blueprint.add_url_rule(
            path,
            endpoint=path,
            view_func=_without_arguments(relay),
            methods=[method],
            provide_automatic_options=False,
        )
    return blueprint


async def _in_steps(steps: Steps[T]) -> T:
    """What a large body gives, with other requests' turns between its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
        await asyncio.sleep(0)


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


class _Asked:
    """One request to one engine. Counts as its load until the answer was read or dropped, or nobody holds this any
    more: a client may leave before anything of the answer is read."""

    def __init__(self, asking: Asking, engines: Engines, engine: Engine, tokens: int) -> None:
        self._asking = asking
        self._engines = engines
        self._engine = engine
        self._reservation = engines.reserve(engine, tokens)
        self._answer: aiohttp.ClientResponse | None = None
        self.body: bytes | None = None
        """Of the answer to a GET."""

    async def answer(self, target: str, body: bytes, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """The answer of the engine, to a GET with its body; EngineFailure if there is none, or something else."""
        # As it is written: aiohttp would decode and resolve it once more.
        url = URL(self._engine.url + target, encoded=True)
        try:
            with engine_errors(self._engine.id):
                answer = self._answer = await self._asking.session.request(
                    request.method, url, data=body or None, headers=self._asking.headers(self._engine),
                    timeout=timeout, allow_redirects=False,
                )  # fmt: skip
                if request.method == "GET":
                    self.body = await self._whole(answer)  # it may yet fail, and another engine can be asked
            mistake = _mistake(answer, self.body)
            if mistake is not None:
                raise EngineFailure(f"engine {self._engine.id} {mistake}", reason=Failure.ENGINE_ERROR)
        except EngineFailure as failure:
            self.drop(is_failed=failure.source == "engine")
            raise
        except BaseException:
            self.drop()
            raise
        if answer.status >= 500:
            self._note_failed()
        return answer

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        limit_bytes, body = self._asking.max_answer_bytes, bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > limit_bytes:
                message = f"the answer of engine {self._engine.id} has more than {limit_bytes} bytes"
                raise EngineFailure(message, reason=Failure.ENGINE_ERROR)
        return bytes(body)

    def drop(self, *, is_failed: bool = False) -> None:
        """No more is wanted of the answer."""
        if is_failed:
            self._note_failed()
        if self._answer is not None:
            self._answer.close()
        self._reservation.release()

    def _note_failed(self) -> None:
        self._engines.note_failed(self._reservation)

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            if self._answer is not None:
                with engine_errors(self._engine.id):
                    async for chunk in self._answer.content.iter_any():
                        yield chunk
        except EngineFailure as failure:
            if failure.source == "engine":
                self._note_failed()
            raise
        finally:
            self.drop()

    def __del__(self) -> None:
        self.drop()


def _mistake(answer: aiohttp.ClientResponse, body: bytes | None) -> str | None:
    """What shows that another program, or a broken engine, answered. All GETs of the table are answered with a JSON
    object; other answers are passed on while they come."""
    if answer.status != 200:
        return None if 400 <= answer.status <= 599 else f"answered with status {answer.status}"
    if answer.content_type == "text/html":
        return "answered 200 with a page"
    if body is None:
        return None
    fields = read_object(body)
    if fields is None:
        return "answered 200 with something that is no JSON object"
    return None if is_absent(fields, "error") else "answered 200 with an error"


def _response(asked: _Asked, answer: aiohttp.ClientResponse) -> Response:
    """A GET's answer is here; any other is streamed on."""
    response = Response(asked.chunks() if asked.body is None else asked.body, status=answer.status)
    response.headers.clear()
    for name, value in answer.headers.items():
        if name.lower().encode() not in _NOT_RETURNED:
            response.headers.add(name, value)
    return response
