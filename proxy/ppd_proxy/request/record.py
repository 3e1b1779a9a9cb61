"""What is known of a request when it is over: the source of its log line and of its metrics."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ppd_core.fleet.engine import HandoffName
from ppd_core.policy.plan import Mode, Route
from ppd_wire.answers.transfer import Transfer
from ppd_wire.errors import Refusal


class Record(msgspec.Struct, kw_only=True):
    """One client request. Times are seconds on the monotonic clock; None means unknown or not reached.

    `reason` is a DecisionReason, a Refusal or a Failure. `prompt_tokens`, `cached_tokens` and `completion_tokens` are
    the decode leg's `usage`. On route `pd` vLLM reports the prefill engine's own prefix hit as `cached_tokens`. Engines
    count a prompt once per choice, `usage` counts it once. Token times are known for streams only. `has_kv` is False
    when a prefill answer handed nothing over, so that the decode engine computed the prompt itself. `transfer` is told
    in JSON answers only, and only by engines with our connector.
    `path` is the request's, as it came, with its query; `model` what the client named, as it stands in its JSON body,
    or the start of it.
    `decode_opened_at` is when the decode leg's request went out. `filled_by` are the ids of the prefill engines whose
    KV a complete answer relied on, as far as its history tells.
    """

    request_id: str
    mode: Mode
    received_at: float
    path: bytes = b""
    model: bytes | None = None
    is_stream: bool = False
    route: Route = "none"
    reason: StrEnum = Refusal.BAD_REQUEST
    turn: int = 1
    status: int = 0
    prefill_id: str | None = None
    decode_id: str | None = None
    handoff: HandoffName | None = None
    choices: int = 1
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    has_kv: bool | None = None
    transfer: Transfer | None = None
    filled_by: tuple[str, ...] = ()
    decode_opened_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    ended_at: float | None = None
    is_client_gone: bool = False
    retries: int = 0
    error: str | None = None
