"""Serving one generation request: from a checked body through queue, prefill and decoding to the answer's bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ppd_connector.wire import TRANSFER_FIELD
from ppd_sim.core import EngineCore, ReadyPrompt
from ppd_sim.faults import Fault
from ppd_sim.http.answers import Answered, AnswerShaper, PromptScores, TokenUsage
from ppd_sim.http.server import HttpExchange
from ppd_sim.kv.handoff import KvPlan, nixl_params
from ppd_sim.kv.peer import TransferFailed
from ppd_sim.model.body import GenerationRequest, Json, Rejected, error_json
from ppd_sim.model.sequence import Decoded, Decoding, score_prompt

_YIELD_EVERY_STEPS = 128


class StreamCut(Exception):
    """A scripted fault has ended the answer; nothing more may be sent."""


@dataclass(slots=True)
class _Times:
    arrived_at: float
    scheduled_at: float = 0.0
    first_token_at: float = 0.0


class RunningGeneration:
    """One request in flight. `serve` sends the whole answer; cancelling it is the client's going away."""

    def __init__(
        self, core: EngineCore, exchange: HttpExchange, request: GenerationRequest, plan: KvPlan, fault: Fault | None
    ) -> None:
        self._core = core
        self._exchange = exchange
        self._request = request
        self._plan = plan
        self._fault = fault
        self._is_pulled = plan.remote is None or core.config.handoff != "nixl"
        self._chunks = 0
        self._loop = asyncio.get_running_loop()
        self._times = _Times(self._loop.time())
        self._shaper: AnswerShaper
        self._ready: list[ReadyPrompt] = []
        self._prompt_scores: list[PromptScores | None] = []
        self._choices: list[Answered] = []
        self._decodings: list[Decoding] = []

    async def serve(self, request_id: str, headers: dict[str, str]) -> None:
        """Run the request; `Rejected` when there is no answer and nothing has been sent yet."""
        self._shaper = self._make_shaper(request_id, int(self._core.wall_clock()))
        if self._request.is_stream:
            self._exchange.start_stream(headers)
        try:
            await self._wait_for_slot()
            try:
                await self._run(headers)
            finally:
                self._core.slots.release()
        except asyncio.CancelledError:
            self._core.counts.aborts += 1
            self._core.metrics.success["abort"].inc()
            self._release_remote()
            raise
        except StreamCut:
            return

    async def compute(self) -> Json:
        """The answer as a JSON body, not sent; `Rejected` when there is none."""
        self._shaper = self._make_shaper("inner", 0)
        await self._core.slots.acquire()
        self._times.scheduled_at = self._loop.time()
        try:
            await self._prefill()
            self._start_decoding()
            await self._decode()
        finally:
            self._core.slots.release()
        return self._shaper.body(self._choices, self._usage(), self._prompt_scores, None)

    def _make_shaper(self, request_id: str, created: int) -> AnswerShaper:
        core = self._core
        thinking = core.config.reasoning_tokens
        return AnswerShaper(
            self._request, core.tokenizer, request_id=request_id, created=created, reasoning_tokens=thinking
        )

    async def _wait_for_slot(self) -> None:
        remote = self._plan.remote
        if remote is None or not self._core.slots.is_full:
            await self._core.slots.acquire()
            return
        heartbeat = self._core.spawn(self._core.renew_lease(remote))
        try:
            await self._core.slots.acquire()
        finally:
            heartbeat.cancel()

    def _release_remote(self) -> None:
        if not self._is_pulled and self._plan.remote is not None and not self._core.is_closing:
            self._core.spawn(self._core.release(self._plan.remote))

    async def _run(self, headers: dict[str, str]) -> None:
        self._times.scheduled_at = self._loop.time()
        tokens = sum(map(len, self._request.prompts)) + sum(self._request.max_tokens) * self._request.n
        blocks = self._core.blocks_for(tokens)
        self._core.running_blocks += blocks
        try:
            await self._prefill()
            self._start_decoding()
            if self._request.is_stream:
                await self._stream()
            else:
                await self._decode()
                await self._answer(headers)
        except TransferFailed:
            self._fail("Internal server error")
        finally:
            self._core.running_blocks -= blocks

    async def _prefill(self) -> None:
        request = self._request
        for prompt, token_ids in enumerate(request.prompts):
            self._ready.append(await self._core.prefill(request, prompt, self._plan))
            for _ in range(request.n - 1):
                self._core.count_again(self._ready[-1])
            wants_scores = request.prompt_logprobs is not None or (request.has_echo and request.logprobs is not None)
            top = request.prompt_logprobs if request.prompt_logprobs is not None else request.logprobs or 0
            scores = score_prompt(self._core.model, request.adapter, token_ids, top) if wants_scores else None
            self._prompt_scores.append(scores)
        self._is_pulled = True

    def _start_decoding(self) -> None:
        request = self._request
        seed = request.seed if request.seed is not None else self._core.random.getrandbits(63)
        for prompt, ready in enumerate(self._ready):
            for number in range(request.n):
                decoding = Decoding(
                    self._core.model, self._core.tokenizer, request, prompt=prompt, choice=number, seed=seed
                )
                if ready.is_damaged or (self._fault is not None and self._fault.kind == "corrupt"):
                    decoding.corrupt()
                self._decodings.append(decoding)
                self._choices.append(Answered(index=len(self._choices), prompt=prompt))

    async def _pass_decode_time(self, step: int) -> None:
        """Wait until decoding step `step` is due. The first token comes with the prefill, if there was one."""
        per_token_s = self._core.config.timing.decode_ms_per_token / 1e3
        is_after_prefill = any(ready.computed_tokens for ready in self._ready)
        if step == 0:
            if not is_after_prefill and per_token_s:
                await asyncio.sleep(per_token_s)
            self._times.first_token_at = self._loop.time()
            self._core.metrics.time_to_first_token.observe(self._times.first_token_at - self._times.arrived_at)
        elif per_token_s:
            due_at = self._times.first_token_at + step * per_token_s
            await asyncio.sleep(max(0.0, due_at - self._loop.time()))
            self._core.metrics.inter_token.observe(per_token_s)
        elif not self._request.is_stream and step % _YIELD_EVERY_STEPS == 0:
            await asyncio.sleep(0)

    def _steps(self) -> list[tuple[Answered, Decoded]]:
        """One decoding step of every choice that is not finished."""
        made: list[tuple[Answered, Decoded]] = []
        for choice, decoding in zip(self._choices, self._decodings, strict=True):
            if choice.finish_reason is None:
                step = decoding.step()
                choice.add(step)
                made.append((choice, step))
        if not made:
            self._finish()
        return made

    async def _decode(self) -> None:
        step = 0
        await self._pass_decode_time(0)
        while self._steps():
            step += 1
            await self._pass_decode_time(step)

    async def _stream(self) -> None:
        exchange = self._exchange
        await self._pass_decode_time(0)
        if self._request.endpoint == "chat":
            for choice in self._choices:
                exchange.event(self._shaper.role_event(choice.index, self._running_usage()))
        await self._act_on_fault()
        step = 0
        while steps := self._steps():
            for choice, made in steps:
                scores = self._prompt_scores[choice.prompt]
                event = self._shaper.step_event(choice, made, self._running_usage(), scores)
                if event is not None:
                    exchange.event(event)
                self._chunks += 1
                await self._act_on_fault()
            await exchange.drain()
            step += 1
            if any(choice.finish_reason is None for choice in self._choices):
                await self._pass_decode_time(step)
        self._hand_over()
        if self._request.has_usage:
            exchange.event(self._shaper.usage_event(self._usage()))
        exchange.event(b"[DONE]")
        exchange.end_stream()

    async def _act_on_fault(self) -> None:
        fault = self._fault
        if fault is None or fault.chunks != self._chunks:
            return
        if fault.kind == "die_after":
            self._exchange.drop()
        elif fault.kind == "error_after":
            self._fail(fault.message)
        elif fault.kind == "truncate_after":
            self._exchange.end_stream()
        elif fault.kind == "stall_after":
            await self._exchange.drain()
            await asyncio.Event().wait()
        else:
            return
        raise StreamCut

    async def _answer(self, headers: dict[str, str]) -> None:
        fault = self._fault
        if fault is not None and fault.kind == "error_after":
            raise Rejected(fault.message, status=500, error_type="InternalServerError")
        if fault is not None and fault.kind == "stall_after":
            await asyncio.Event().wait()
        kv_params = self._hand_over()
        body = self._shaper.body(self._choices, self._usage(), self._prompt_scores, kv_params)
        if fault is not None and fault.kind in ("die_after", "truncate_after"):
            self._exchange.json_half(body, headers)
            raise StreamCut
        self._exchange.json(200, body, headers)

    def _hand_over(self) -> dict[str, object] | None:
        """Keep what another engine will fetch. Gives the answer's `kv_transfer_params`."""
        if self._plan.kind != "hold":
            transfer = self._ready[0].transfer
            return {TRANSFER_FIELD: transfer} if transfer is not None else None
        core = self._core
        held = core.hold(self._ready[0], self._plan)
        if core.config.handoff != "nixl":
            return None
        return nixl_params(held, engine_id=core.engine_id, host=core.host, port=core.port)

    def _fail(self, message: str) -> None:
        """vLLM's way to fail: an error object, or after the headers of a stream an error event and `[DONE]`."""
        self._core.counts.errors += 1
        if not self._request.is_stream:
            raise Rejected(message, status=500, error_type="InternalServerError")
        if not self._decodings and self._request.endpoint == "chat":
            self._exchange.event(self._shaper.role_event(0, self._running_usage()))
        error = error_json(message, 500, "InternalServerError")
        self._exchange.event(self._shaper.encode(error))
        self._exchange.event(b"[DONE]")
        self._exchange.end_stream()

    def _usage(self) -> TokenUsage:
        return TokenUsage(
            prompt_tokens=sum(map(len, self._request.prompts)),
            completion_tokens=sum(len(choice.token_ids) for choice in self._choices),
            cached_tokens=self._ready[-1].reported_cached_tokens if self._ready else None,
        )

    def _running_usage(self) -> TokenUsage | None:
        return self._usage() if self._request.has_continuous_usage else None

    def _finish(self) -> None:
        core, metrics = self._core, self._core.metrics
        for choice in self._choices:
            core.remember_answer(self._ready[choice.prompt], self._request, choice.prompt, choice.token_ids)
            metrics.success["length" if choice.finish_reason == "length" else "stop"].inc()
        core.counts.finished += 1
        now, times = self._loop.time(), self._times
        generated = sum(len(choice.token_ids) for choice in self._choices)
        decode_s = now - (times.first_token_at or now)
        metrics.generation_tokens.inc(generated)
        metrics.queue_time.observe(times.scheduled_at - times.arrived_at)
        metrics.prefill_time.observe((times.first_token_at or now) - times.scheduled_at)
        metrics.decode_time.observe(decode_s)
        metrics.inference_time.observe(now - times.scheduled_at)
        metrics.e2e_time.observe(now - times.arrived_at)
        metrics.per_output_token.observe(decode_s / max(1, generated - 1))
