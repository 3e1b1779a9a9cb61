"""How a generation request takes part in a KV handoff, read from its body (NIXL) or its request id (P2pNccl)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ppd_connector.wire import parse_tag
from ppd_sim.config import EngineConfig
from ppd_sim.kv.held import HeldPrompt
from ppd_sim.kv.peer import RemoteKv
from ppd_sim.model.body import GenerationRequest, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPlan:
    """`hold`: keep the prompt's KV under `key` for another engine. `pull`: fetch it from `remote`. `local`: neither.

    `peer` is the other engine's KV address as its P2pNccl tag tells it, `held_tokens` what the tag says that the decode
    engine holds.
    """

    kind: Literal["local", "hold", "pull"]
    key: str = ""
    remote: RemoteKv | None = None
    peer: str = ""
    held_tokens: int = 0


LOCAL = KvPlan(kind="local")


def plan_handoff(config: EngineConfig, request: GenerationRequest, request_id: str, engine_request_id: str) -> KvPlan:
    """What this engine does for this request; an engine without a connector ignores all parameters, as vLLM does."""
    if config.role == "aggregated" or config.handoff == "none":
        return LOCAL
    if config.handoff == "p2p_nccl":
        return _plan_p2p(config, request_id)
    params = request.kv_params or {}
    if params.get("do_remote_prefill"):
        remote = RemoteKv.from_nixl(params)
        return KvPlan(kind="pull", remote=remote) if remote is not None else LOCAL
    if params.get("do_remote_decode"):
        return KvPlan(kind="hold", key=engine_request_id)
    return LOCAL


def _plan_p2p(config: EngineConfig, request_id: str) -> KvPlan:
    tag = parse_tag(request_id)
    if tag is None:
        return LOCAL
    tensor_key = f"{tag.prefill}>{tag.decode}>{tag.key}"
    held_tokens = tag.held_tokens if config.has_our_connector else 0
    if config.role == "prefill":
        return KvPlan(kind="hold", key=tensor_key, peer=tag.decode, held_tokens=held_tokens)
    remote = RemoteKv(address=tag.prefill, key=tensor_key)
    return KvPlan(kind="pull", remote=remote, peer=tag.prefill, held_tokens=held_tokens)


def nixl_params(prompt: HeldPrompt, *, engine_id: str, host: str, port: int) -> Json:
    """The `kv_transfer_params` a prefill engine answers with, in vLLM 0.32's order and shape."""
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_block_ids": [list(prompt.block_ids)],
        "remote_engine_id": engine_id,
        "remote_request_id": prompt.key,
        "remote_host": host,
        "remote_port": port,
        "tp_size": 1,
        "dcp_size": 1,
        "pp_size": 1,
        "remote_num_tokens": prompt.num_tokens,
        "remote_blocks_expiry_time": None,
        "transfer_mode": "pull",
        "remote_prefill_cached_tokens": prompt.cached_tokens,
    }
