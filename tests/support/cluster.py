"""The real proxy in front of simulated engines, in the test's own event loop, spoken to over loopback."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import aiohttp
import msgpack  # type: ignore[import-untyped]
import zmq
import zmq.asyncio
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from ppd_connector.wire import announcement
from ppd_proxy.config.config import Config
from ppd_proxy.config.sections import Discovery, Engines, Limits, Metrics, Server
from ppd_proxy.runtime.runtime import Runtime
from ppd_shell.tasks import Tasks
from ppd_sim.config import EngineConfig
from ppd_sim.engine import SimEngine, running_engine

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LIMIT_S = 20.0
"""How long anything may take that should happen at once; machines that run tests are slow at times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One whole answer. `broken` is the error with which its connection ended before it was complete."""

    status: int
    headers: dict[str, str]
    body: bytes
    broken: aiohttp.ClientError | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def decision(self) -> str:
        return self.headers["x-ppd-decision"]

    @property
    def route(self) -> str:
        return self.decision.partition(";")[0]

    @property
    def reason(self) -> str:
        return self.decision.split(";")[1].removeprefix("reason=")

    @property
    def payloads(self) -> list[str]:
        """The data of every event, `[DONE]` included."""
        events = self.body.decode().split("\n\n")
        assert events.pop() == ""
        assert all(event.startswith("data: ") for event in events), self.body
        return [event.removeprefix("data: ") for event in events]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads if payload != "[DONE]"]

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def text(self) -> str:
        """What the first choice says."""
        if not self.is_stream:
            return said_by(self.json["choices"][0])
        return "".join(said_by(choice) for event in self.events for choice in event["choices"] if choice["index"] == 0)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


def said_by(choice: dict[str, Any]) -> str:
    part = choice.get("message") or choice.get("delta") or {}
    return str(part.get("content") or choice.get("text") or "")


@dataclass(slots=True)
class Cluster:
    """A started proxy, its engines by role, and a client session."""

    runtime: Runtime
    http: aiohttp.ClientSession
    tasks: Tasks
    prefills: list[SimEngine] = field(default_factory=list)
    decodes: list[SimEngine] = field(default_factory=list)
    aggregated: list[SimEngine] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.runtime.url

    @property
    def engines(self) -> list[SimEngine]:
        return [*self.prefills, *self.decodes, *self.aggregated]

    @property
    def prefill(self) -> SimEngine:
        (engine,) = self.prefills
        return engine

    @property
    def decode(self) -> SimEngine:
        (engine,) = self.decodes
        return engine

    async def ask(
        self, path: str, body: Any = None, *, method: str = "", headers: dict[str, str] | None = None
    ) -> Reply:
        """One request through the proxy; POST when there is a body."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        sent = {"content-type": "application/json", **(headers or {})}
        return await fetch(self.http, method or ("GET" if body is None else "POST"), self.url + path, data, sent)

    async def chat(self, messages: Any, *, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
        if isinstance(messages, str):
            messages = [user(messages)]
        return await self.ask(
            CHAT, {"messages": messages, "max_tokens": 20, "temperature": 0, **fields}, headers=headers
        )

    async def complete(self, prompt: Any, *, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
        return await self.ask(
            COMPLETIONS, {"prompt": prompt, "max_tokens": 20, "temperature": 0, **fields}, headers=headers
        )

    async def samples(self) -> dict[str, float]:
        """The proxy's metrics: `name{label="value",...}` with sorted labels to value."""
        return samples_of((await self.ask("/metrics")).body.decode())

    async def scraped(self, is_told: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The proxy's metrics once they say what they must; the engines are read once a second."""
        async with asyncio.timeout(LIMIT_S):
            while not is_told(samples := await self.samples()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return samples

    @property
    def is_idle(self) -> bool:
        """No request counts as in flight, and no prefill engine holds KV."""
        load = self.runtime.load
        is_counted = any(load.requests.values()) or any(load.tokens.values())
        return not is_counted and not any(len(engine.held) for engine in self.prefills)

    async def becomes_idle(self) -> None:
        await until(lambda: self.is_idle)

    def state_of(self, engine: SimEngine) -> str | None:
        known = self.runtime.fleet.get(engine.http_address)
        return known.state if known is not None else None


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


async def fetch(
    http: aiohttp.ClientSession, method: str, url: str, data: bytes | str | None, headers: dict[str, str]
) -> Reply:
    sent = data if data is None else io.BytesIO(data.encode() if isinstance(data, str) else data)
    async with asyncio.timeout(LIMIT_S), http.request(method, url, data=sent, headers=headers) as answer:
        parts: list[bytes] = []
        broken = None
        try:
            async for part in answer.content.iter_any():
                parts.append(part)  # noqa: PERF401 - what came before a broken end counts
        except aiohttp.ClientError as error:
            broken = error
        lowered = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(status=answer.status, headers=lowered, body=b"".join(parts), broken=broken)


async def ask_engine(http: aiohttp.ClientSession, engine: SimEngine, path: str, body: dict[str, Any]) -> Reply:
    """The same request without a proxy."""
    return await fetch(http, "POST", engine.url + path, json.dumps(body), {"content-type": "application/json"})


async def until(condition: Callable[[], object]) -> None:
    """Wait until something that has no event of its own is so."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def samples_of(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def limits(**values: Any) -> dict[str, Any]:
    return {"limits": Limits(**values)}


@asynccontextmanager
async def running_proxy(**sections: Any) -> AsyncIterator[Cluster]:
    """A proxy that knows only the engines of its configuration; nothing is scraped or discovered unless asked for."""
    config = Config(
        server=replace(sections.pop("server", Server()), host="127.0.0.1", port=0),
        discovery=sections.pop("discovery", Discovery(discovery_port=0, probe_interval_s=60.0)),
        metrics=sections.pop("metrics", Metrics(scrape_interval_s=0)),
        **sections,
    )
    tasks = Tasks(asyncio.get_running_loop())
    runtime = Runtime(config)
    try:
        await runtime.start()
        async with aiohttp.ClientSession() as http:
            yield Cluster(runtime, http, tasks)
            await tasks.stop()
    finally:
        runtime.ask_to_stop()
        runtime.ask_to_stop()
        await runtime.stop()


@asynccontextmanager
async def running_cluster(
    *,
    prefill: int = 1,
    decode: int = 1,
    aggregated: int = 0,
    engine: dict[str, Any] | None = None,
    prefill_engine: dict[str, Any] | None = None,
    decode_engine: dict[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[Cluster]:
    """A proxy with so many static engines; `engine` is what all their configurations share."""
    shared = engine or {}
    async with AsyncExitStack() as stack:

        async def started(role: str, count: int, own: dict[str, Any] | None) -> list[SimEngine]:
            config = EngineConfig(**{"role": role, **shared, **(own or {})})
            return [await stack.enter_async_context(running_engine(config)) for _ in range(count)]

        prefills = await started("prefill", prefill, prefill_engine)
        decodes = await started("decode", decode, decode_engine)
        whole = await started("aggregated", aggregated, None)
        engines = Engines(prefill=urls(prefills), decode=urls(decodes), aggregated=urls(whole))
        cluster = await stack.enter_async_context(running_proxy(engines=engines, **sections))
        cluster.prefills, cluster.decodes, cluster.aggregated = prefills, decodes, whole
        yield cluster


def urls(engines: Iterable[SimEngine]) -> tuple[str, ...]:
    return tuple(engine.url for engine in engines)


class Announcer:
    """What a P2pNccl engine has beside its HTTP server: a DEALER named after its KV address. Sends when told to."""

    def __init__(self, context: zmq.asyncio.Context, port: int, engine: SimEngine, **facts: Any) -> None:
        kind: Literal["P", "D"] = "D" if engine.config.role == "decode" else "P"
        self._facts = {**announcement(kind, engine.http_address, engine.zmq_address), **facts}
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt_string(zmq.IDENTITY, engine.zmq_address)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    async def beat(self, **changes: Any) -> None:
        await self._socket.send(msgpack.packb(self._facts | changes))

    async def keep_beating(self, period_s: float) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(period_s)


@asynccontextmanager
async def zmq_context() -> AsyncIterator[zmq.asyncio.Context]:
    context = zmq.asyncio.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


@asynccontextmanager
async def scripted_engine(
    answer: Callable[[web.Request], Any], *paths: str, keepalive_s: float = 75.0,
    health: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None,
) -> AsyncIterator[str]:  # fmt: skip
    """An engine that says what `answer` says, for what the simulated ones never say; gives its URL."""
    app = web.Application(client_max_size=1 << 30)

    async def well(_: web.Request) -> web.Response:
        return web.Response()

    async def serve(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = await answer(request)
        return response

    app.router.add_get("/health", health or well)
    for path in paths or (CHAT, COMPLETIONS):
        app.router.add_post(path, serve)
    runner = web.AppRunner(app, keepalive_timeout=keepalive_s, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
