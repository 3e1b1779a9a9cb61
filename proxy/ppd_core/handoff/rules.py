"""What every handoff protocol states about itself: how its legs look and what may be done when something goes wrong.

A protocol is one module with one `Handoff` value made of pure functions; `registry.py` finds it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ppd_core.fleet.engine import Engine, HandoffName

CancelPrefill = Literal["abort", "finish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """One protocol.

    - `request_id(prefill, decode, key, held_tokens)`: the `X-Request-Id` of both legs; `key` is 32 hex digits, new for
      each attempt, `held_tokens` how much of the prompt's KV the decode engine should hold already (0: nothing known).
    - `prefill_params`: raw JSON for the prefill leg's `kv_transfer_params`, or None.
    - `takes_params`: the prefill answer's `kv_transfer_params` go verbatim to the decode leg.
    - `check_params(raw)`: what is wrong with them, None when the decode engine can use them.
    - `cancel_prefill`: what to do when the client leaves during the prefill leg. `abort`: the engine frees an
      unfinished request itself. `finish`: the receiver already holds parts of the KV, so the prefill leg ends and a
      decode leg of one token consumes it.
    - `holds_kv`: after a finished prefill leg something stays allocated until a decode leg takes it.
    - `is_rebindable`: KV that no decode leg has touched may go to another decode engine.
    - `can_pair(prefill, decode)`: both engines have what the protocol needs.
    - `is_direct_safe(decode)`: the engine survives a request without a handoff.
    """

    name: HandoffName
    request_id: Callable[[Engine, Engine, str, int], str]
    prefill_params: bytes | None
    takes_params: bool
    check_params: Callable[[bytes], str | None]
    holds_kv: bool
    cancel_prefill: CancelPrefill
    is_rebindable: bool
    can_pair: Callable[[Engine, Engine], bool]
    is_direct_safe: Callable[[Engine], bool]


def no_params_wanted(raw: bytes) -> str | None:
    """`check_params` of protocols that do not look at them."""
    return None
