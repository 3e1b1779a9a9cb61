"""No parameters: both engines share one KV store (LMCache, SharedStorage), the legs run one after the other.

Source: vLLM `examples/.../disagg_proxy_demo.py`, LMCache shared-store example. Nothing is held for a peer.
"""

from __future__ import annotations

from ppd_core.fleet.engine import Engine
from ppd_core.handoff.rules import Handoff, no_params_wanted


def request_id(prefill: Engine, decode: Engine, key: str, held_tokens: int) -> str:
    return key


def can_pair(prefill: Engine, decode: Engine) -> bool:
    return prefill.handoff == decode.handoff == "none"


def is_direct_safe(decode: Engine) -> bool:
    return True


NONE = Handoff(
    name="none",
    request_id=request_id,
    prefill_params=None,
    takes_params=False,
    check_params=no_params_wanted,
    holds_kv=False,
    cancel_prefill="abort",
    is_rebindable=True,
    can_pair=can_pair,
    is_direct_safe=is_direct_safe,
)
