"""What is decided of a request: the words of the policies."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from ppd_core.conversation.history import History
from ppd_core.fleet.engine import Engine, HandoffName

Route = Literal["pd", "direct", "aggregated", "none"]
Mode = Literal["pd", "ppd"]
MODES: tuple[Mode, ...] = ("pd", "ppd")


class DecisionReason(StrEnum):
    """Why a request went where it went: the vocabulary of `x-ppd-decision` and `ppd_route_decisions_total`, which is
    closed together with the Refusals and Failures of `ppd_wire.errors`."""

    # routed
    FIRST_TURN = "first_turn"
    KNOWN_HISTORY = "known_history"
    MODE_PD = "mode_pd"
    HISTORY_UNKNOWN = "history_unknown"
    HOME_GONE = "home_gone"
    HOME_OVERLOADED = "home_overloaded"
    HOME_UNHEALTHY = "home_unhealthy"
    HOME_DISTRUSTED = "home_distrusted"
    HANDOFF_NOT_DIRECT_SAFE = "handoff_not_direct_safe"
    MULTI_SEQUENCE = "multi_sequence"
    PROMPT_LOGPROBS = "prompt_logprobs"
    PROMPT_DEPENDS_ON_OUTPUT = "prompt_depends_on_output"
    ENDPOINT_NOT_SPLIT = "endpoint_not_split"
    NO_PREFILL_ENGINE = "no_prefill_engine"
    NO_DECODE_ENGINE = "no_decode_engine"
    NO_MATCHING_PAIR = "no_matching_pair"
    DIRECT_DISTRUSTED = "direct_distrusted"
    PAIR_DISTRUSTED = "pair_distrusted"
    SPLIT_DISTRUSTED = "split_distrusted"
    DISTRUSTED_ANYWAY = "distrusted_anyway"
    # routed again after a failure
    PREFILL_FAILED = "prefill_failed"
    DECODE_FAILED = "decode_failed"
    # not routed
    PASSED_ON = "passed_on"


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the deciders need to know of a request, without its text."""

    history: History = History()
    prompt_tokens: int = 0
    """Estimated, for load accounting."""
    spread_key: bytes = b""
    """Breaks ties between equally loaded engines: the same conversation start always breaks them the same way."""
    is_multi_sequence: bool = False
    wants_prompt_logprobs: bool = False
    prompt_depends_on_output: bool = False
    is_split_endpoint: bool = True


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is served: the route, why, and by which engines. `decode` is the engine that answers, also on
    routes without a prefill leg (`direct`, `aggregated`)."""

    route: Route
    reason: DecisionReason
    turn: int
    decode: Engine
    prefill: Engine | None = None

    @property
    def handoff(self) -> HandoffName:
        return self.decode.handoff
