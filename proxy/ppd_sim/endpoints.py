"""The HTTP endpoints of a simulated engine: vLLM's, and `/sim/...` for other simulated engines and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from ppd_sim.core import EngineCore
from ppd_sim.faults import Fault, parse_faults
from ppd_sim.generation import RunningGeneration
from ppd_sim.http.dialects import message, message_events, response, response_events
from ppd_sim.http.server import HttpExchange
from ppd_sim.kv.handoff import KvPlan, plan_handoff
from ppd_sim.kv.peer import FREE_PATH, PULL_PATH, RENEW_PATH
from ppd_sim.model.body import Endpoint, Json, Rejected, error_json, read
from ppd_sim.model.chat import TemplateError, chat_tokens
from ppd_sim.model.model import uniform
from ppd_sim.state import Received

VLLM_VERSION: Final = "0.32.0"
_EMBEDDING_SIZE: Final = 32
Route = Callable[[HttpExchange, Fault | None], Awaitable[None] | None]


class Endpoints:
    """Routes requests of one engine."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/version"): lambda exchange, _: exchange.json(200, {"version": VLLM_VERSION}),
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/completions"): lambda exchange, fault: self._generate(exchange, "completions", fault),
            ("POST", "/v1/chat/completions"): lambda exchange, fault: self._generate(exchange, "chat", fault),
            ("POST", "/v1/responses"): lambda exchange, _: self._other_generation(exchange, "responses"),
            ("POST", "/v1/messages"): lambda exchange, _: self._other_generation(exchange, "messages"),
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/reset_prefix_cache"): self._reset_cache,
            ("GET", "/sim/state"): self._state,
            ("POST", "/sim/faults"): self._add_faults,
            ("DELETE", "/sim/faults"): self._clear_faults,
            ("POST", PULL_PATH): self._pull,
            ("POST", FREE_PATH): self._free,
            ("POST", RENEW_PATH): self._renew,
        }

    async def __call__(self, exchange: HttpExchange) -> None:
        """Answer one request."""
        core = self._core
        core.counts.requests[exchange.path] += 1
        fault = core.faults.match(exchange.path)
        if fault is not None and not await self._survives(exchange, fault):
            return
        route = self._routes.get((exchange.method, exchange.path))
        try:
            if route is None:
                is_known = any(path == exchange.path for _, path in self._routes)
                raise Rejected(
                    "Method Not Allowed" if is_known else "Not Found",
                    status=405 if is_known else 404,
                    error_type="Method Not Allowed" if is_known else "Not Found",
                )
            self._check_key(exchange)
            done = route(exchange, fault)
            if done is not None:
                await done
        except Rejected as error:
            exchange.json(error.status, error.to_json())

    def _check_key(self, exchange: HttpExchange) -> None:
        key = self._core.config.api_key
        if key and exchange.path.startswith("/v1/") and exchange.headers.get("authorization") != f"Bearer {key}":
            raise Rejected("Unauthorized", status=401, error_type="Unauthorized")

    async def _survives(self, exchange: HttpExchange, fault: Fault) -> bool:
        """Act on faults that come before the answer; False when there is nothing left to do."""
        if fault.kind == "delay":
            await asyncio.sleep(fault.delay_s)
        elif fault.kind == "status":
            exchange.json(fault.status, fault.body or error_json(fault.message, fault.status, "InternalServerError"))
            return False
        elif fault.kind == "hang":
            await self._hang()
        elif fault.kind == "drop":
            exchange.drop()
            return False
        elif fault.kind == "kill":
            self._core.kill()
            return False
        return True

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._core.counts.aborts += 1
            raise

    async def _generate(self, exchange: HttpExchange, endpoint: Endpoint, fault: Fault | None) -> None:
        core = self._core
        body = self._received(exchange)
        request = read(endpoint, body, core.tokenizer, core.limits)
        request_id = exchange.headers.get("x-request-id") or f"{core.random.getrandbits(128):032x}"
        if core.config.dies_untagged and plan_handoff(core.config, request, request_id, "").kind == "local":
            core.counts.untagged_requests += 1
            core.kill()
            return
        kind = "chatcmpl-{}-{:08x}" if endpoint == "chat" else "cmpl-{}-0-{:08x}"
        plan = plan_handoff(core.config, request, request_id, kind.format(request_id, core.random.getrandbits(32)))
        self._refuse_several(plan, request.sequences)
        headers = {"x-request-id": request_id} if core.config.echoes_request_id else {}
        await RunningGeneration(core, exchange, request, plan, fault).serve(request_id, headers)

    def _refuse_several(self, plan: KvPlan, sequences: int) -> None:
        if plan.kind == "local" or sequences == 1:
            return
        self._core.counts.multi_sequence_handoffs += 1
        raise Rejected(
            f"EngineCore encountered an issue: {sequences} sequences share one KV handoff",
            status=500,
            error_type="InternalServerError",
        )

    def _received(self, exchange: HttpExchange) -> Json:
        body = _object(exchange)
        if self._core.config.keeps_requests:
            self._core.requests.append(Received(path=exchange.path, headers=exchange.headers, body=body))
        return body

    def _health(self, exchange: HttpExchange, _: Fault | None) -> None:
        exchange.send(200, b"", "text/plain")

    def _metrics(self, exchange: HttpExchange, _: Fault | None) -> None:
        exchange.send(200, self._core.metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")

    def _models(self, exchange: HttpExchange, _: Fault | None) -> None:
        config, created = self._core.config, int(self._core.wall_clock())
        cards = []
        for name in (config.model_name, *config.adapters):
            parent = config.model_name if name in config.adapters else None
            cards.append(
                {
                    "id": name, "object": "model", "created": created, "owned_by": "vllm", "root": name,
                    "parent": parent, "max_model_len": config.max_model_len, "permission": [],
                }
            )  # fmt: skip
        exchange.json(200, {"object": "list", "data": cards})

    def _embeddings(self, exchange: HttpExchange, _: Fault | None) -> None:
        body = self._received(exchange)
        value = body.get("input")
        several = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
        data, total = [], 0
        for index, text in enumerate(several):
            token_ids = self._core.tokenizer.encode(text) if isinstance(text, str) else text
            if not isinstance(token_ids, list) or not token_ids:
                raise Rejected("input must be a non-empty string, or a list of strings or token ids", param="input")
            total += len(token_ids)
            seed = sum((place + 1) * token_id for place, token_id in enumerate(token_ids)) & 0xFFFF_FFFF
            vector = [2.0 * uniform(seed, place) - 1.0 for place in range(_EMBEDDING_SIZE)]
            data.append({"index": index, "object": "embedding", "embedding": vector})
        usage = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0, "prompt_tokens_details": None}
        model = body.get("model") or self._core.config.model_name
        answer = {"id": "embd-sim", "object": "list", "created": int(self._core.wall_clock()), "model": model}
        exchange.json(200, {**answer, "data": data, "usage": usage})

    def _tokenize(self, exchange: HttpExchange, _: Fault | None) -> None:
        core, body = self._core, _object(exchange)
        if "messages" in body:
            try:
                token_ids = chat_tokens(core.tokenizer, body, core.config.tokens_per_image)[1]
            except TemplateError as error:
                raise Rejected(str(error), param="messages") from error
        elif isinstance(body.get("prompt"), str):
            token_ids = core.tokenizer.encode(body["prompt"])
        else:
            raise Rejected("prompt must be a string", error_type="Bad Request", param="body.prompt")
        names = [core.tokenizer.decode((token_id,)) for token_id in token_ids]
        exchange.json(
            200,
            {
                "count": len(token_ids),
                "max_model_len": core.config.max_model_len,
                "tokens": token_ids,
                "token_strs": names if body.get("return_token_strs") else None,
            },
        )

    def _detokenize(self, exchange: HttpExchange, _: Fault | None) -> None:
        token_ids = _object(exchange).get("tokens")
        if not isinstance(token_ids, list) or not all(isinstance(item, int) and item >= 0 for item in token_ids):
            raise Rejected("tokens must be a list of token ids", error_type="Bad Request", param="body.tokens")
        exchange.json(200, {"prompt": self._core.tokenizer.decode(token_ids)})

    async def _other_generation(self, exchange: HttpExchange, kind: str) -> None:
        """`/v1/responses` and `/v1/messages`: a valid answer, computed like a chat answer."""
        body = self._received(exchange)
        asked = body.get("input") if kind == "responses" else body.get("messages")
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        limit = body.get("max_output_tokens" if kind == "responses" else "max_tokens") or 64
        chat = {"model": body.get("model"), "messages": messages, "max_tokens": limit, "temperature": 0}
        request = read("chat", chat, self._core.tokenizer, self._core.limits)
        if self._core.config.dies_untagged:
            self._core.counts.untagged_requests += 1
            self._core.kill()
            return
        answer = await RunningGeneration(self._core, exchange, request, KvPlan(kind="local"), None).compute()
        text = answer["choices"][0]["message"]["content"]
        usage = {"input_tokens": answer["usage"]["prompt_tokens"]}
        usage["output_tokens"] = answer["usage"]["completion_tokens"]
        if kind == "messages":
            whole, to_events = message(request.model_name, text, usage), message_events
        else:
            now = int(self._core.wall_clock())
            whole, to_events = response(request.model_name, text, usage, now), response_events
        if body.get("stream"):
            exchange.send(200, to_events(whole), "text/event-stream; charset=utf-8")
        else:
            exchange.json(200, whole)

    def _reset_cache(self, exchange: HttpExchange, _: Fault | None) -> None:
        self._core.cache.clear()
        exchange.send(200, b"", "text/plain")

    def _state(self, exchange: HttpExchange, _: Fault | None) -> None:
        core = self._core
        exchange.json(
            200,
            {
                "role": core.config.role,
                "handoff": core.config.handoff,
                "held": len(core.held),
                "cache_blocks": len(core.cache),
                "evicted_blocks": core.cache.evicted_blocks,
                "running": core.slots.running,
                "waiting": core.slots.waiting,
                "fault_hits": core.faults.hits(),
                **core.counts.to_json(),
            },
        )

    def _add_faults(self, exchange: HttpExchange, _: Fault | None) -> None:
        try:
            faults = parse_faults(exchange.body)
        except ValueError as error:
            raise Rejected(str(error), param="faults") from error
        self._core.faults.add(*faults)
        exchange.json(200, {"added": len(faults)})

    def _clear_faults(self, exchange: HttpExchange, _: Fault | None) -> None:
        self._core.faults.clear()
        exchange.json(200, {})

    def _pull(self, exchange: HttpExchange, _: Fault | None) -> None:
        core, body = self._core, _object(exchange)
        key = str(body.get("key"))
        held = core.held.peek(key)
        why = ""
        if held is None:
            why = core.held.why_gone(key)
        elif body.get("engine_id") not in (None, core.engine_id):
            why = "of another engine"
        elif body.get("block_ids") is not None and tuple(body["block_ids"]) != held.block_ids:
            why = "of other blocks"
        if held is None or why:
            core.counts.stale_pulls += 1
            exchange.json(404, {"error": why})
            return
        core.held.take(key)
        if core.config.has_our_connector:
            core.metrics.connector.count("send", held.peer, held.transfer)
        exchange.json(200, {"digest": held.digest, "num_tokens": held.num_tokens})

    def _free(self, exchange: HttpExchange, _: Fault | None) -> None:
        exchange.json(200, {"freed": self._core.held.free(str(_object(exchange).get("key")))})

    def _renew(self, exchange: HttpExchange, _: Fault | None) -> None:
        lease_s = self._core.config.kv_lease_s * 2 / 3
        exchange.json(200, {"renewed": self._core.held.renew(str(_object(exchange).get("key")), lease_s)})


def _object(exchange: HttpExchange) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(exchange.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected(
            f"1 validation error:\n  JSON decode error: {error}", error_type="Bad Request", param="body"
        ) from error
    if not isinstance(body, dict):
        raise Rejected("1 validation error:\n  the body must be an object", error_type="Bad Request", param="body")
    return body
