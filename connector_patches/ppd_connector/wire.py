"""What travels between engines and the proxy in the P2pNccl protocol: the announcement, the tagged request id, and
the figures that engines with our connector tell.

Standard library only: the proxy imports this module, and so may anything else that speaks the protocol. The caller
encodes the announcement (msgpack). Source: vLLM 0.23, `p2p_nccl_engine.py` and `disagg_proxy_p2p_nccl_xpyd.py`.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

PREFILL_MARK = "___prefill_addr_"
DECODE_MARK = "___decode_addr_"
HELD_MARK = "_held"

# Counters on an engine's /metrics, beside vLLM's labels `model_name` and `engine`. `peer` is the other engine's
# `zmq_address`, or "other" where an engine has met too many.
TRANSFER_BYTES = "vllm:ppd_kv_transfer_bytes_total"
"""Labels `direction` ("recv" or "send") and `peer`."""
TRANSFER_SECONDS = "vllm:ppd_kv_transfer_seconds_total"
"""Labels `direction` and `peer`."""
TRANSFERS = "vllm:ppd_kv_transfers_total"
"""Labels `direction` and `peer`."""
BLOCKS = "vllm:ppd_kv_blocks_total"
"""Labels `direction`, `peer` and `what`: "moved", or "skipped" because the receiver held them."""
FAILURES = "vllm:ppd_kv_failures_total"
"""Labels `direction`, `peer` and `reason`."""

HELD_BYTES = "vllm:ppd_kv_held_bytes"
"""A gauge, label `direction`: KV that waits for its request ("recv"), or for its peer ("send")."""

TRANSFER_FIELD = "ppd_transfer"
"""Key in the `kv_transfer_params` of a decode engine's JSON answer; its value is
`{"bytes": int, "seconds": float, "blocks": int, "skipped_blocks": int}` for this one request."""

_TAG = re.compile(
    r"___prefill_addr_(?P<prefill>[^\s_]+:[0-9]{1,5})___decode_addr_(?P<decode>[^\s_]+:[0-9]{1,5})_(?P<key>[0-9a-f]{32})"
    r"(?:_held(?P<held>[0-9]{1,9})(?![0-9]))?"
)


class Tag(NamedTuple):
    """A request id that names both engines. `held_tokens`: of so many tokens at the prompt's beginning the decode
    engine should still hold the KV, so the prefill engine need not send the blocks that lie in them whole."""

    prefill: str
    decode: str
    key: str
    held_tokens: int = 0


def announcement(
    engine_type: Literal["P", "D"],
    http_address: str,
    zmq_address: str,
    *,
    ppd: bool = False,
    connector_version: str | None = None,
    role: Literal["prefill", "decode", "both"] | None = None,
) -> dict[str, str | bool]:
    """The map an engine sends every 3 s; both addresses are `host:port` without a scheme.

    The keywords are ours and left out where they say nothing: `ppd` that the engine takes direct requests and
    understands `held_tokens`, `role` what it is for (one that is for both announces itself as "P").
    """
    stock: dict[str, str | bool] = {"type": engine_type, "http_address": http_address, "zmq_address": zmq_address}
    ours = {"ppd": ppd, "connector_version": connector_version, "role": role}
    return stock | {name: value for name, value in ours.items() if value}


def request_tag(prefill_zmq: str, decode_zmq: str, key: str, held_tokens: int = 0) -> str:
    """The `X-Request-Id` that tells both engines where the other one listens; `key` is 32 hex digits."""
    held = f"{HELD_MARK}{held_tokens}" if held_tokens > 0 else ""
    return f"{PREFILL_MARK}{prefill_zmq}{DECODE_MARK}{decode_zmq}_{key}{held}"


def parse_tag(text: str) -> Tag | None:
    """The tag inside a request id (vLLM puts it between `chatcmpl-` and a suffix), or None when there is none."""
    match = _TAG.search(text)
    if match is None or not all(0 < int(match[side].rpartition(":")[2]) < 65536 for side in ("prefill", "decode")):
        return None
    return Tag(match["prefill"], match["decode"], match["key"], int(match["held"] or 0))
