"""What is not trusted to give right answers, as `decide` and the planner need to know it. Whoever judges sets it.

Pure. A cache salt separates KV: vLLM looks blocks up by it, so that an engine with a new salt no longer finds what it
held before, and nothing has to be restarted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from ppd_core.conversation.history import Home
from ppd_core.policy.plan import DecisionReason, Plan

Pair = tuple[str, str]
_MAX_ID_CHARS = 48
"""Of an engine id within a salt: vLLM takes 128 characters, and the client's own salt should fit in, too."""


def new_salt(decode_id: str, epoch: str) -> str:
    """`epoch` must be new for each: engines outlive this process."""
    name = decode_id
    if len(name) > _MAX_ID_CHARS:
        name = hashlib.blake2b(decode_id.encode(), digest_size=12).hexdigest()
    return f"ppd-{name}-{epoch}"


class Distrust(msgspec.Struct, frozen=True, kw_only=True):
    """`pairs` are (prefill id, decode id) whose KV may be wrong; `is_direct`: later turns must not go straight to their
    homes; `is_split`: no pair is trusted, not even one that shows up later. `salts` are the current cache salts by
    engine id. Whoever distrusts a pair gives its decode engine a new salt, which stays when the pair is trusted again:
    without it the engine would go on finding the KV that is not trusted.
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    is_direct: bool = False
    is_split: bool = False
    salts: Mapping[str, str] = msgspec.field(default_factory=dict)

    def is_pair_bad(self, prefill_id: str, decode_id: str) -> bool:
        return self.is_split or (prefill_id, decode_id) in self.pairs

    def is_home_bad(self, home: Home) -> bool:
        """Its KV is not trusted, or lies under a salt that is not in use any more."""
        if home.salt != self.salts.get(home.engine_id, ""):
            return True
        has_bad_pairs = self.is_split or bool(self.pairs)
        return has_bad_pairs and any(self.is_pair_bad(prefill_id, home.engine_id) for prefill_id in home.filled_by)

    def salt(self, plan: Plan) -> str:
        """The cache salt of the plan's decode leg; "" for none. What is done with distrusted KV for want of anything
        else gets one of its own, so that nothing that is trusted ever finds it."""
        salt = self.salts.get(plan.decode.id, "")
        return f"{salt or 'ppd'}-anyway" if plan.reason is DecisionReason.DISTRUSTED_ANYWAY else salt


def joined(one: Distrust, other: Distrust) -> Distrust:
    """What either of two judges distrusts. Where both gave an engine a salt, the two make a third, so that it changes
    when either does."""
    salts = {**one.salts, **other.salts}
    for decode_id in one.salts.keys() & other.salts.keys():
        both = f"{one.salts[decode_id]}|{other.salts[decode_id]}"
        salts[decode_id] = f"ppd-{hashlib.blake2b(both.encode(), digest_size=16).hexdigest()}"
    return Distrust(
        pairs=one.pairs | other.pairs,
        is_direct=one.is_direct or other.is_direct,
        is_split=one.is_split or other.is_split,
        salts=salts,
    )
