"""NIXL pull: the decode engine reads the blocks that the prefill answer names.

Source: vLLM 0.32, `nixl/pull_scheduler.py`, `nixl/base_scheduler.py`, `docs/features/nixl_connector_usage.md`.
- The prefill answer's dict is opaque and goes to the decode leg verbatim; it is used once (vllm#52234).
- The prefill engine holds the blocks under a lease (30 s, extended by the decode engine's heartbeats). A decode engine
  that admitted the request frees them when it reads, and when the request is aborted before that.
- An aborted prefill request holds nothing. Direct requests need nothing: any NIXL decode engine serves them.
"""

from __future__ import annotations

import msgspec

from ppd_core.fleet.engine import Engine
from ppd_core.handoff.rules import Handoff

PREFILL_PARAMS = (
    b'{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,'
    b'"remote_block_ids":null,"remote_host":null,"remote_port":null}'
)


NEEDED = ("remote_engine_id", "remote_request_id", "remote_block_ids", "remote_host", "remote_port")

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def check_params(raw: bytes) -> str | None:
    """A vLLM 0.32 decode engine hangs on a dict that lacks one of these, and dies of the request after it."""
    try:
        params = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "kv_transfer_params of the prefill answer is no JSON object"
    if bytes(params.get("do_remote_prefill", b"")) != b"true":
        return None
    missing = [name for name in NEEDED if bytes(params.get(name, b"null")) == b"null"]
    return f"kv_transfer_params of the prefill answer lacks {', '.join(missing)}" if missing else None


def request_id(prefill: Engine, decode: Engine, key: str, held_tokens: int) -> str:
    return key


def can_pair(prefill: Engine, decode: Engine) -> bool:
    return prefill.handoff == decode.handoff == "nixl"


def is_direct_safe(decode: Engine) -> bool:
    return True


NIXL = Handoff(
    name="nixl",
    request_id=request_id,
    prefill_params=PREFILL_PARAMS,
    takes_params=True,
    check_params=check_params,
    holds_kv=True,
    cancel_prefill="abort",
    is_rebindable=True,
    can_pair=can_pair,
    is_direct_safe=is_direct_safe,
)
