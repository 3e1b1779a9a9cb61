"""P2pNccl: the request id names both engines, the prefill engine pushes layer by layer to the decode engine.

Source: vLLM 0.9.2 to 0.23, `p2p_nccl_engine.py`, `p2p_nccl_connector.py`.
- Layers arrive at the decode engine while the prefill leg runs and stay there until a decode leg takes them, so a
  prefill leg is never cut short and the KV belongs to that one decode engine.
- A stock consumer dies of a request without a tag: direct requests only where the engine announced `"ppd": true`.
- Between two engines that announced it, the tag says how much of the prompt the decode engine holds from earlier turns,
  and the prefill engine leaves that out. If the decode engine does not hold so much any more, it computes the rest.
"""

from __future__ import annotations

from ppd_connector.wire import request_tag
from ppd_core.fleet.engine import Engine
from ppd_core.handoff.rules import Handoff, no_params_wanted


def request_id(prefill: Engine, decode: Engine, key: str, held_tokens: int) -> str:
    """The tag; both engines must have announced a KV address (`can_pair`).

    `held_tokens` only for two engines with our connector: a stock prefill engine sends everything all the same, and a
    stock decode engine does not look whether it still holds what was left out.
    """
    knows_held = prefill.is_ppd and decode.is_ppd
    return request_tag(prefill.zmq_address or "", decode.zmq_address or "", key, held_tokens if knows_held else 0)


def can_pair(prefill: Engine, decode: Engine) -> bool:
    return prefill.handoff == decode.handoff == "p2p_nccl" and bool(prefill.zmq_address and decode.zmq_address)


def is_direct_safe(decode: Engine) -> bool:
    return decode.is_ppd


P2P_NCCL = Handoff(
    name="p2p_nccl",
    request_id=request_id,
    prefill_params=None,
    takes_params=False,
    check_params=no_params_wanted,
    holds_kv=True,
    cancel_prefill="finish",
    is_rebindable=False,
    can_pair=can_pair,
    is_direct_safe=is_direct_safe,
)
