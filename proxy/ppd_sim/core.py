"""The parts one simulated engine is made of, and the work they share: prefilling a prompt, holding and pulling KV."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import xxhash

from ppd_sim.config import EngineConfig
from ppd_sim.faults import Faults
from ppd_sim.http.server import Spawn
from ppd_sim.kv.cache import PrefixCache, block_hashes, chain_start
from ppd_sim.kv.handoff import KvPlan
from ppd_sim.kv.held import HeldPrompt, HeldPrompts
from ppd_sim.kv.peer import Peers, Pulled, RemoteKv, TransferFailed
from ppd_sim.metrics import EngineMetrics
from ppd_sim.model.body import GenerationRequest, Served
from ppd_sim.model.model import Model, pack_tokens
from ppd_sim.model.tokens import Tokenizer
from ppd_sim.state import EngineCounts, Received
from ppd_sim.timing import PrefillLane, Slots
from ppd_wire.answers.transfer import Transfer

_P2P_RETRY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyPrompt:
    """One prompt that is ready to decode: where its tokens came from and the chain its answer's blocks continue."""

    tokens: int
    local_tokens: int
    external_tokens: int
    reported_cached_tokens: int
    hashes: list[bytes]
    start: bytes
    digest: str
    is_damaged: bool
    transfer: Transfer | None

    @property
    def computed_tokens(self) -> int:
        return self.tokens - self.local_tokens - self.external_tokens


class EngineCore:
    """Everything of an engine but its HTTP side; one event loop owns it."""

    def __init__(
        self, config: EngineConfig, *, spawn: Spawn, wall_clock: Callable[[], float], kill: Callable[[], None]
    ) -> None:
        self.config = config
        self.spawn = spawn
        self.wall_clock = wall_clock
        self.kill = kill
        self.random = random.Random(config.seed)
        self.engine_id = f"{random.SystemRandom().getrandbits(128):032x}"
        self.host, self.port = config.host, config.port
        self.tokenizer = Tokenizer()
        self.model = Model(config.model)
        self.cache = PrefixCache(config.cache_blocks if config.has_prefix_cache else 0)
        self.slots = Slots(config.timing.slots)
        self.lane = PrefillLane()
        self.peers = Peers()
        self.faults = Faults(config.seed)
        self.counts = EngineCounts()
        self.requests: list[Received] = []
        self.metrics = EngineMetrics(config)
        self.held = HeldPrompts(config.kv_lease_s, self._on_lease_expiry)
        self.running_blocks = 0
        self.is_closing = False
        self._next_block = 0
        self.limits = Served(
            model_name=config.model_name,
            adapters=config.adapters,
            max_model_len=config.max_model_len,
            default_max_tokens=config.default_max_tokens,
            tokens_per_image=config.tokens_per_image,
        )
        self.metrics.read_gauges_from(lambda: self.slots.running, lambda: self.slots.waiting, lambda: self.cache_usage)

    @property
    def cache_usage(self) -> float:
        """Share of the KV blocks that running and held requests occupy."""
        return min(1.0, (self.running_blocks + self.held.blocks) / self.config.cache_blocks)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.config.block_tokens)

    async def prefill(self, request: GenerationRequest, prompt: int, plan: KvPlan) -> ReadyPrompt:
        """Make one prompt ready; `TransferFailed` when its KV should have come from elsewhere and did not."""
        token_ids = request.prompts[prompt]
        start = chain_start(request.adapter, request.cache_salt)
        hashes = block_hashes(token_ids, self.config.block_tokens, start)
        blocks, is_damaged = self.cache.match(hashes) if request.prompt_logprobs is None else (0, False)
        usable = min(blocks, (len(token_ids) - 1) // self.config.block_tokens)
        local_tokens = usable * self.config.block_tokens
        digest = self.digest(start, token_ids)
        external_tokens, reported, transfer = 0, local_tokens, None
        if plan.remote is not None:
            is_whole = blocks * self.config.block_tokens == len(token_ids)
            moved_tokens, is_usable = len(token_ids) - local_tokens, True
            if self.config.has_our_connector:
                transfer, moved_tokens = self._transfer(plan, len(token_ids))
                is_usable = local_tokens + moved_tokens >= len(token_ids)
            pulled = await self._bring_in(plan.remote, moved_tokens, is_whole=is_whole)
            if transfer is not None:
                self.metrics.connector.count("recv", plan.peer, transfer)
            if not is_usable:
                self.metrics.connector.fail("recv", plan.peer, "prefix_not_held")
            elif pulled is not None:
                external_tokens = len(token_ids) - local_tokens - (self.config.handoff == "p2p_nccl")
                if pulled.digest != digest:
                    self.counts.mismatched_handoffs += 1
                    is_damaged = True
            is_nixl = self.config.handoff == "nixl"
            reported = (plan.remote.cached_tokens or 0) if is_nixl else local_tokens + external_tokens
        ready = ReadyPrompt(
            tokens=len(token_ids),
            local_tokens=local_tokens,
            external_tokens=external_tokens,
            reported_cached_tokens=reported,
            hashes=hashes,
            start=start,
            digest=digest,
            is_damaged=is_damaged,
            transfer=transfer,
        )
        if ready.computed_tokens:
            cached_tokens = local_tokens + external_tokens
            await self.lane.occupy(self.config.timing.prefill_s(ready.computed_tokens, cached_tokens))
        self.cache.insert(hashes, is_damaged=is_damaged)
        self._count_prompt(ready)
        return ready

    def _transfer(self, plan: KvPlan, tokens: int) -> tuple[Transfer, int]:
        """What moving a prompt of `tokens` takes with our connector, and how many of them are moved: all but the whole
        blocks that the decode engine is said to hold. The last block is never one of them."""
        timing = self.config.timing
        skipped_blocks = min(plan.held_tokens, tokens - 1) // self.config.block_tokens
        moved_tokens = tokens - skipped_blocks * self.config.block_tokens
        transfer = Transfer(
            bytes=moved_tokens * timing.kv_bytes_per_token,
            seconds=timing.transfer_s(moved_tokens),
            blocks=self.blocks_for(moved_tokens),
            skipped_blocks=skipped_blocks,
        )
        return transfer, moved_tokens

    def hold(self, ready: ReadyPrompt, plan: KvPlan) -> HeldPrompt:
        """Keep a finished prompt's KV for a decode engine."""
        count = self.blocks_for(ready.tokens)
        block_ids = tuple((self._next_block + place) % self.config.cache_blocks for place in range(count))
        self._next_block += count
        prompt = HeldPrompt(
            key=plan.key,
            peer=plan.peer,
            transfer=self._transfer(plan, ready.tokens)[0],
            block_ids=block_ids,
            digest=ready.digest,
            num_tokens=ready.tokens,
            cached_tokens=ready.local_tokens,
        )
        self.held.hold(prompt)
        return prompt

    def remember_answer(self, ready: ReadyPrompt, request: GenerationRequest, prompt: int, answer: list[int]) -> None:
        """Put the blocks an answer filled into the prefix cache; its last token's KV was never computed."""
        size = self.config.block_tokens
        rest = [*request.prompts[prompt][len(ready.hashes) * size :], *answer[:-1]]
        parent = ready.hashes[-1] if ready.hashes else ready.start
        self.cache.insert(block_hashes(rest, size, parent), is_damaged=ready.is_damaged)

    async def release(self, remote: RemoteKv) -> None:
        """Tell the prefill engine that its blocks are not wanted; a failure to do so is only counted."""
        try:
            await self.peers.free(remote)
            self.counts.released += 1
        except TransferFailed:
            self.metrics.nixl_failed_notifications.inc()

    async def renew_lease(self, remote: RemoteKv) -> None:
        """Heartbeats for as long as a request waits here; cancelled by its owner."""
        while True:
            await asyncio.sleep(self.config.kv_lease_s / 6)
            try:
                await self.peers.renew(remote)
            except TransferFailed:
                self.metrics.nixl_failed_notifications.inc()

    def digest(self, start: bytes, token_ids: list[int]) -> str:
        return xxhash.xxh3_128_hexdigest(start + pack_tokens(token_ids))

    async def _bring_in(self, remote: RemoteKv, tokens: int, *, is_whole: bool) -> Pulled | None:
        if self.config.handoff == "p2p_nccl":
            return await self._wait_for_tensors(remote, tokens)
        if is_whole:
            self.counts.full_local_hits += 1
            await self.release(remote)
            return None
        try:
            pulled = await self.peers.pull(remote)
        except TransferFailed:
            self.counts.failed_transfers += 1
            self.metrics.nixl_failed.inc()
            raise
        await self._pass_transfer(tokens)
        return pulled

    async def _wait_for_tensors(self, remote: RemoteKv, tokens: int) -> Pulled:
        """P2pNccl has no timeout: a consumer waits for its producer for ever."""
        while True:
            try:
                pulled = await self.peers.pull(remote)
            except TransferFailed:
                self.counts.failed_transfers += 1
                await asyncio.sleep(_P2P_RETRY_S)
            else:
                await self._pass_transfer(tokens)
                return pulled

    async def _pass_transfer(self, tokens: int) -> None:
        timing = self.config.timing
        duration_s = timing.transfer_s(tokens)
        if duration_s:
            await asyncio.sleep(duration_s)
        self.counts.transfers += 1
        self.counts.transferred_tokens += tokens
        if self.config.handoff == "nixl":
            self.metrics.nixl_xfer.observe(duration_s)
            self.metrics.nixl_post.observe(timing.transfer_fixed_ms / 1e3)
            self.metrics.nixl_bytes.observe(tokens * timing.kv_bytes_per_token)
            self.metrics.nixl_descriptors.observe(self.blocks_for(tokens))

    def count_again(self, ready: ReadyPrompt) -> None:
        """Each further choice is a request of its own in vLLM: it finds the full blocks in the cache."""
        size = self.config.block_tokens
        local_tokens = (ready.tokens - 1) // size * size if self.config.has_prefix_cache else 0
        self._count_prompt(replace(ready, local_tokens=local_tokens, external_tokens=0))

    def _count_prompt(self, ready: ReadyPrompt) -> None:
        metrics = self.metrics
        metrics.prompt_tokens.inc(ready.tokens)
        if self.config.has_prefix_cache:
            metrics.prefix_queries.inc(ready.tokens)
            metrics.prefix_hits.inc(ready.local_tokens)
        if self.config.role != "aggregated" and self.config.handoff != "none":
            metrics.external_queries.inc(ready.tokens - ready.local_tokens)
            metrics.external_hits.inc(ready.external_tokens)
        metrics.prompt_tokens_by_source["local_compute"].inc(ready.computed_tokens)
        metrics.prompt_tokens_by_source["local_cache_hit"].inc(ready.local_tokens)
        metrics.prompt_tokens_by_source["external_kv_transfer"].inc(ready.external_tokens)

    def _on_lease_expiry(self) -> None:
        self.counts.expired_leases += 1
        self.metrics.nixl_expired.inc()
