"""What travels between engines and the proxy in the P2pNccl protocol: the announcement and the tagged request id.

Standard library only: the proxy imports this module, and so may anything else that speaks the protocol. The caller
encodes the announcement (msgpack). Source: vLLM 0.23, `p2p_nccl_engine.py` and `disagg_proxy_p2p_nccl_xpyd.py`.
"""

from __future__ import annotations

import re
from typing import Literal

PREFILL_MARK = "___prefill_addr_"
DECODE_MARK = "___decode_addr_"
_TAG = re.compile(
    r"___prefill_addr_(?P<prefill>[^\s_]+:\d+)___decode_addr_(?P<decode>[^\s_]+:\d+)_(?P<key>[0-9a-f]{32})"
)


def announcement(engine_type: Literal["P", "D"], http_address: str, zmq_address: str) -> dict[str, str]:
    """The map an engine sends every 3 s; both addresses are `host:port` without a scheme."""
    return {"type": engine_type, "http_address": http_address, "zmq_address": zmq_address}


def request_tag(prefill_zmq: str, decode_zmq: str, key: str) -> str:
    """The `X-Request-Id` that tells both engines where the other one listens; `key` is 32 hex digits."""
    return f"{PREFILL_MARK}{prefill_zmq}{DECODE_MARK}{decode_zmq}_{key}"


def parse_tag(text: str) -> tuple[str, str, str] | None:
    """`(prefill_zmq, decode_zmq, key)` of the tag inside a request id, or None when there is none."""
    match = _TAG.search(text)
    return (match["prefill"], match["decode"], match["key"]) if match else None
