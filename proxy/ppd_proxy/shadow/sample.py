"""What the shadow gets of a sampled request once the client has its answer, and what is made of it before any IO."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import xxhash

from ppd_proxy.core.candidate import Candidate
from ppd_proxy.core.chat import Fields, Kind
from ppd_proxy.core.record import Transfer
from ppd_proxy.core.types import Reason, Route

_SPREAD = 2**64
_SHAPED_BY = (
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "min_tokens", "bad_words",
    "allowed_token_ids", "structured_outputs", "response_format", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "use_beam_search", "thinking_token_budget",
)  # fmt: skip
"""Fields that make the engine choose among changed logits, while logprobs are of the unchanged ones (vLLM's default
`raw_logprobs`): a greedy choice is not the likeliest token then, and is not judged as one."""
_NOTHING = frozenset({b"null", b"0", b"0.0", b"1.0", b"{}", b"[]", b'""', b"false"})
_value = msgspec.json.Decoder(Any)


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
    reason: Reason
    turn: int
    prefill_id: str | None
    decode_id: str
    filled_by: tuple[str, ...]
    is_greedy: bool
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
    """The same request id is always in or out, and in at any higher rate if at a lower one."""
    return xxhash.xxh3_64_intdigest(request_id.encode()) < rate * _SPREAD


def is_greedy(fields: Fields) -> bool:
    """The engine took the likeliest token at every step, as far as the request says."""
    temperature = fields.get("temperature")
    if temperature is None or any(_is_set(fields, name) for name in _SHAPED_BY):
        return False
    choice = fields.get("tool_choice")
    if choice is not None and bytes(choice) not in (b'"auto"', b'"none"', b"null"):
        return False
    value = _value.decode(temperature)
    return isinstance(value, int | float) and value < 1e-5


def is_repeatable(fields: Fields) -> bool:
    """A replay can be expected to give the same answer: greedy or seeded."""
    return _is_set(fields, "seed") or ("temperature" in fields and bytes(fields["temperature"]) in (b"0", b"0.0"))


def _is_set(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    if raw is None:
        return False
    if name == "seed":
        return bytes(raw) != b"null"
    return bytes(raw) not in _NOTHING


def scopes_of(sample: Sample, red: Iterable[str]) -> tuple[str, ...]:
    """The scopes that answer for a sample, beside `all`; `red` are those that are red.

    Blame follows the KV: a direct turn is charged to the pair that filled its home, and to no pair where several did. A
    pd turn on a decode engine that another, red pair has filled may have met that pair's blocks in the prefix cache: it
    is charged to no pair either.
    """
    scopes = [f"route:{sample.route}"] if sample.route in ("pd", "direct") else []
    pair = sample.pair
    is_alone = sample.route != "pd" or set(sample.filled_by) <= {sample.prefill_id}
    if pair is not None and is_alone and not _has_red_neighbour(sample, pair, red):
        scopes.append(f"pair:{pair}")
    return tuple(scopes)


def _has_red_neighbour(sample: Sample, pair: str, red: Iterable[str]) -> bool:
    return any(
        scope.startswith("pair:") and scope.endswith(f">{sample.decode_id}") and scope != f"pair:{pair}"
        for scope in red
    )
