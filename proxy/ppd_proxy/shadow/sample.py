"""What the shadow gets of a sampled request once the client has its answer, and what is made of it before any IO."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import xxhash

from ppd_accuracy.verdicts.noise import Sampling
from ppd_core.policy.plan import DecisionReason, Route
from ppd_wire.answers.candidate import Candidate
from ppd_wire.answers.transfer import Transfer
from ppd_wire.requests.choosing import is_greedy, is_shaped
from ppd_wire.requests.generation import Fields, Kind

_SPREAD = 2**64
_packed = msgspec.msgpack.Encoder()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One sampled request and the candidate answer. `at` is wall-clock seconds; `filled_by` are the prefill engines
    whose KV the answer relied on. `fields` are the client's own, for replays and for the sampling of noise."""

    id: str
    at: float
    kind: Kind
    path: str
    fields: Fields
    body: bytes
    model: str
    route: Route
    reason: DecisionReason
    turn: int
    prefill_id: str | None
    decode_id: str
    filled_by: tuple[str, ...]
    sampling: Sampling
    is_scorable: bool
    prompt_tokens: int
    candidate: Candidate
    transfer: Transfer | None = None

    @property
    def pair(self) -> str | None:
        """The pair whose transfer this answer used, or relied on when it went direct."""
        if self.route == "pd" and self.prefill_id is not None:
            return pair_name(self.prefill_id, self.decode_id)
        return pair_name(self.filled_by[0], self.decode_id) if len(self.filled_by) == 1 else None


def pair_name(prefill_id: str, decode_id: str) -> str:
    return f"{prefill_id}>{decode_id}"


def is_sampled(request_id: str, rate: float) -> bool:
    """The same request id is always in or out, and in at any higher rate if at a lower one. It must be the proxy's own:
    whoever chooses the id chooses what is checked."""
    return xxhash.xxh3_64_intdigest(request_id.encode()) < rate * _SPREAD


def sampling_of(fields: Fields) -> Sampling:
    """How the engine chose its tokens, as far as the request says."""
    if is_shaped(fields):
        return "shaped"
    return "greedy" if is_greedy(fields) else "sampled"


def identity_of(sample: Sample) -> bytes:
    """A digest of prompt and answer: the same twice is evidence once."""
    candidate = sample.candidate
    if not candidate.token_ids:
        return sample.id.encode()
    return xxhash.xxh3_128_digest(_packed.encode((candidate.prompt_token_ids, candidate.token_ids)))


def scopes_of(sample: Sample, red: Iterable[str]) -> tuple[str, ...]:
    """The scopes that answer for a sample, beside `all`; `red` are those that are red and still in use.

    Blame follows the KV: a direct turn is charged to the pair that filled its home, and to no pair where several did. A
    pd turn on a decode engine that another, red pair has filled may have met that pair's blocks in the prefix cache: it
    is charged to no pair either.
    """
    scopes = [f"route:{sample.route}"] if sample.route in ("pd", "direct") else []
    pair = sample.pair
    is_mixed = sample.route == "pd" and (
        not set(sample.filled_by) <= {sample.prefill_id} or _has_red_neighbour(sample, pair, red)
    )
    if pair is not None and not is_mixed:
        scopes.append(f"pair:{pair}")
    return tuple(scopes)


def _has_red_neighbour(sample: Sample, pair: str | None, red: Iterable[str]) -> bool:
    return any(
        scope.startswith("pair:") and scope.endswith(f">{sample.decode_id}") and scope != f"pair:{pair}"
        for scope in red
    )
