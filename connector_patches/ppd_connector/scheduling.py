"""The scheduler's half: which request takes KV from where, which KV leaves, whose blocks are kept. No IO, no torch.

Reads vLLM's requests and scheduler output by attribute. A request without a tag is a direct request: nothing is taken
from anywhere, the engine's own prefix cache serves. A malformed tag is counted and computed locally.
"""

from __future__ import annotations

import hashlib
import logging
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ppd_connector.figures import RequestFigures
from ppd_connector.plan import Load, Save, Step, Unneeded
from ppd_connector.settings import Settings
from ppd_connector.wire import DECODE_MARK, PREFILL_MARK, TRANSFER_FIELD, Tag, parse_tag

_log = logging.getLogger("ppd_connector")

Side = Literal["prefill", "decode"]


def prompt_digest(token_ids: Sequence[int], extras: Sequence[str]) -> str:
    """What KV depends on beside the model: token ids, and images and adapter as `extras`."""
    digest = hashlib.blake2b(array("q", token_ids).tobytes(), digest_size=12)
    for extra in extras:
        digest.update(b"\0" + extra.encode())
    return digest.hexdigest()


def side_of(tag: Tag, settings: Settings, own_address: str) -> Side | None:
    """Which of the tag's engines this one is; None when it is neither (`kv_both` goes by its own address)."""
    if settings.role == "kv_producer":
        return "prefill"
    if settings.role == "kv_consumer":
        return "decode"
    if (tag.prefill == own_address) == (tag.decode == own_address):
        return None
    return "prefill" if tag.prefill == own_address else "decode"


@dataclass(slots=True, kw_only=True)
class _Saving:
    """A tagged request that this engine prefills."""

    tag: Tag
    prompt: str
    token_ids: tuple[int, ...]
    blocks: list[int]
    from_token: int
    total_tokens: int
    sent_until: int
    offered: tuple[int, ...] = ()
    """GET: the blocks that hold the finished KV. They are read later, if the request still has them when it ends."""
    is_over: bool = False
    is_dumped: bool = False


@dataclass(slots=True)
class _Loading:
    """A tagged request that this engine decodes. Its KV is taken once: what is used up is never asked for again."""

    tag: Tag
    is_spent: bool = False
    is_prefix_missing: bool = False
    """The producer left out blocks that the proxy took to be here, and they are not."""


class Scheduling:
    """Called in the order in which vLLM's scheduler calls its connector. `own_address` is rank 0's KV address."""

    def __init__(self, settings: Settings, *, block_tokens: int, own_address: str) -> None:
        self._settings = settings
        self._block_tokens = block_tokens
        self._own_address = own_address
        self._step = Step()
        self._savings: dict[str, _Saving] = {}
        self._loadings: dict[str, _Loading] = {}
        self._figures: dict[str, RequestFigures] = {}
        self._malformed: set[str] = set()

    # A request that waits to be scheduled

    def matched_tokens(self, request: Any, computed_tokens: int) -> int:
        """How many prompt tokens beyond `computed_tokens` another engine has KV for. May be called again and again.

        The last prompt token is computed here: its output is the first token of the answer.
        """
        loading = self._loading(request.request_id)
        if loading is None or loading.is_spent or getattr(request, "skip_reading_prefix_cache", False):
            return 0  # the latter: its prompt logprobs come out of computing the prompt
        end = len(request.prompt_token_ids or ()) - 1
        left_out = min(loading.tag.held_tokens, end) // self._block_tokens * self._block_tokens
        loading.is_prefix_missing = self._settings.send_type != "GET" and left_out > computed_tokens
        return 0 if computed_tokens >= end or loading.is_prefix_missing else end - computed_tokens

    def allocated(self, request: Any, blocks: Sequence[int], external_tokens: int) -> None:
        """The request has its blocks; `external_tokens` of its tokens are to be loaded into them."""
        loading = self._loading(request.request_id)
        if loading is None or loading.is_spent:
            return
        loading.is_spent = True
        tag = loading.tag
        token_ids = request.prompt_token_ids or ()
        end = len(token_ids) - 1
        if external_tokens == 0:
            reason = "prefix_not_held" if loading.is_prefix_missing else "unused"
            self._step.unneeded.append(Unneeded(key=tag.key, peer=tag.prefill, reason=reason))
            return
        self._step.loads.append(
            Load(
                request_id=request.request_id,
                key=tag.key,
                peer=tag.prefill,
                prompt=prompt_digest(token_ids[:end], _extras(request)),
                blocks=tuple(blocks),
                first_token=end - external_tokens,
                end_token=end,
                token_ids=tuple(token_ids[:end]) if self._is_dumped(tag.key) else (),
            )
        )

    def _loading(self, request_id: str) -> _Loading | None:
        known = self._loadings.get(request_id)
        if known is not None:
            return known
        tag = self._tag(request_id, "decode")
        if tag is None:
            return None
        known = self._loadings[request_id] = _Loading(tag)
        return known

    def _tag(self, request_id: str, side: Side) -> Tag | None:
        tag = parse_tag(request_id)
        if tag is None:
            is_meant = PREFILL_MARK in request_id or DECODE_MARK in request_id
            if side == "decode" and is_meant and request_id not in self._malformed:
                self._malformed.add(request_id)
                self._step.malformed += 1
                _log.warning("request %s has a malformed tag; its prompt is computed here", request_id)
            return None
        return tag if side_of(tag, self._settings, self._own_address) == side else None

    # A step

    def step(self, output: Any) -> Step:
        """What the worker has to do beside computing this step (vLLM's `SchedulerOutput`)."""
        for new in output.scheduled_new_reqs:
            saving = self._saving(new)
            if saving is not None:
                self._restart(saving)
                saving.blocks = list(new.block_ids[0])
                self._save(new.req_id, saving, new.num_computed_tokens + output.num_scheduled_tokens[new.req_id])
        cached = output.scheduled_cached_reqs
        for index, request_id in enumerate(cached.req_ids):
            saving = self._savings.get(request_id)
            if saving is None:
                continue
            new_blocks = cached.new_block_ids[index]
            if request_id in cached.resumed_req_ids:
                self._restart(saving)
                saving.blocks = list(new_blocks[0]) if new_blocks else []
            elif new_blocks is not None:
                saving.blocks.extend(new_blocks[0])
            computed = cached.num_computed_tokens[index] + output.num_scheduled_tokens[request_id]
            self._save(request_id, saving, computed)
        done, self._step = self._step, Step()
        return done

    def _restart(self, saving: _Saving) -> None:
        """A preempted request lost its blocks. What was sent is sent; what is to be fetched has to be offered anew."""
        if self._settings.send_type == "GET":
            saving.is_over = False
            saving.sent_until = saving.from_token
            saving.offered = ()

    def _saving(self, new: Any) -> _Saving | None:
        known = self._savings.get(new.req_id)
        if known is not None:
            return known
        tag = self._tag(new.req_id, "prefill")
        total = len(new.prompt_token_ids or ()) - 1
        if tag is None or total <= 0:
            return None
        token_ids = tuple(new.prompt_token_ids[:total])
        from_token = 0
        if self._settings.send_type != "GET":
            from_token = min(tag.held_tokens, total) // self._block_tokens * self._block_tokens
        known = self._savings[new.req_id] = _Saving(
            tag=tag,
            prompt=prompt_digest(token_ids, _extras(new)),
            token_ids=token_ids,
            blocks=[],
            from_token=from_token,
            total_tokens=total,
            sent_until=from_token,
            is_dumped=self._is_dumped(tag.key),
        )
        return known

    def _save(self, request_id: str, saving: _Saving, computed_tokens: int) -> None:
        end = min(computed_tokens, saving.total_tokens)
        is_last = end == saving.total_tokens
        is_get = self._settings.send_type == "GET"
        if saving.is_over or end <= saving.sent_until or (is_get and not is_last):
            return
        saving.is_over = is_last
        blocks = tuple(saving.blocks[: -(-end // self._block_tokens)])
        if is_get:
            saving.offered = blocks
        self._step.saves.append(
            Save(
                request_id=request_id,
                key=saving.tag.key,
                peer=saving.tag.decode,
                prompt=saving.prompt,
                blocks=blocks,
                first_token=saving.sent_until,
                end_token=end,
                from_token=saving.from_token,
                total_tokens=saving.total_tokens,
                is_last=is_last,
                token_ids=saving.token_ids if is_last and saving.is_dumped else (),
            )
        )
        saving.sent_until = end

    def _is_dumped(self, key: str) -> bool:
        """By the transfer key alone, so that both sides dump the same requests."""
        share = self._settings.dump_share
        return self._settings.dump_dir is not None and random.Random(key).random() < share

    # The end

    def figures(self, request_id: str, figures: RequestFigures) -> None:
        """What a load cost; kept until the request is over."""
        if request_id in self._loadings:
            known = self._figures.get(request_id)
            self._figures[request_id] = figures if known is None else _joined(known, figures)

    def finished(
        self, request_id: str, block_ids: Sequence[int], *, is_complete: bool
    ) -> tuple[bool, dict[str, Any] | None]:
        """Whether the request's blocks must stay until the worker reports them sent, and what its answer tells.

        `block_ids` are the blocks it has now: none any more if it was preempted after its last step.
        `is_complete`: it ended by itself, not because somebody gave it up.
        """
        saving = self._savings.pop(request_id, None)
        self._loadings.pop(request_id, None)
        self._malformed.discard(request_id)
        figures = self._figures.pop(request_id, None)
        params = None
        if figures is not None:
            names = ("bytes", "seconds", "blocks", "skipped_blocks")
            params = {TRANSFER_FIELD: dict(zip(names, figures, strict=True))}
        if saving is None or self._settings.send_type != "GET":
            return False, params
        has_kv = bool(saving.offered) and tuple(block_ids[: len(saving.offered)]) == saving.offered
        if is_complete and saving.is_over and has_kv:
            self._step.held.append(request_id)
            return True, params
        self._step.dropped.append(request_id)
        return False, params


def _joined(one: RequestFigures, other: RequestFigures) -> RequestFigures:
    """Ranks move their shares side by side."""
    return RequestFigures(
        one.moved_bytes + other.moved_bytes, max(one.seconds, other.seconds), one.moved_blocks, one.skipped_blocks
    )


def _extras(request: Any) -> list[str]:
    extras = [f"mm={feature.identifier}" for feature in getattr(request, "mm_features", None) or ()]
    lora = getattr(request, "lora_request", None)
    if lora is not None:
        extras.append(f"lora={lora.lora_name}")
    return extras
