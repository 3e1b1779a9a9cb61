"""The vocabulary of the proxy: what an engine is, which routes exist and why one was taken.

Owns no behaviour. Every name here is a word of the glossary in docs/architecture.md; every `Reason` is a row of the
README's table of reason codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

Role = Literal["prefill", "decode", "aggregated"]
HandoffName = Literal["nixl", "p2p_nccl", "none"]
EngineState = Literal["up", "unhealthy", "down", "draining"]
EngineSource = Literal["static", "announced", "registered"]
Route = Literal["pd", "direct", "aggregated", "none"]
Mode = Literal["pd", "ppd"]

ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
HANDOFFS: tuple[HandoffName, ...] = ("nixl", "p2p_nccl", "none")
MODES: tuple[Mode, ...] = ("pd", "ppd")


class Reason(StrEnum):
    """Why a request went where it went: the closed vocabulary of `x-ppd-decision` and `ppd_route_decisions_total`."""

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
    # refused before routing
    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_COMPLEX = "body_too_complex"
    BUFFERS_FULL = "buffers_full"
    HEAD_TOO_LARGE = "head_too_large"
    CLIENT_TIMEOUT = "client_timeout"
    UNAUTHORIZED = "unauthorized"
    # what became of an accepted request
    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_ERROR = "engine_error"
    ENGINE_TIMEOUT = "engine_timeout"
    OUT_OF_SOCKETS = "out_of_sockets"
    STOPPING = "stopping"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One vLLM server as the policies see it. `id` is `host:port` of its HTTP address and the `engine` metric label.

    `incarnation` grows each time the engine comes back from being down: a conversation's home is an engine *and* an
    incarnation, because a restarted engine holds no KV. `is_ppd` says that the engine has a connector which takes
    direct requests. `is_trusted`: it may see the engine key and what clients prove themselves with; nobody vouches for
    an engine that only announced itself.
    """

    id: str
    url: str
    role: Role
    handoff: HandoffName
    state: EngineState
    source: EngineSource
    zmq_address: str | None = None
    incarnation: int = 0
    is_ppd: bool = False
    is_trusted: bool = True


class FleetView(msgspec.Struct, frozen=True, kw_only=True):
    """The engines that can take new requests now (state `up` or `unhealthy`), by role, each tuple ordered by id.
    `unhealthy` are the ids of those whose last answers all failed: taken where there is no other."""

    prefill: tuple[Engine, ...] = ()
    decode: tuple[Engine, ...] = ()
    aggregated: tuple[Engine, ...] = ()
    unhealthy: frozenset[str] = frozenset()


class Home(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The decode engine that holds a conversation's KV, and how many tokens of it.

    `filled_by` are the ids of the prefill engines whose KV it took for this conversation, in order and each once, as
    far as this history tells; empty when it computed everything itself. `salt` is the cache salt that the proxy gave
    its legs ("": none): KV under another salt never matches.
    """

    engine_id: str
    incarnation: int
    held_tokens: int
    filled_by: tuple[str, ...] = ()
    salt: str = ""


class History(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known about the history of one request.

    `known_answers` counts the answers of ours in the longest known prefix. `is_complete` says that this prefix reaches
    up to and including the last assistant message (raw prompts: the end of an earlier answer). `has_answers` says that
    the request carries assistant messages at all.
    """

    known_answers: int = 0
    is_complete: bool = False
    has_answers: bool = False
    home: Home | None = None

    @property
    def turn(self) -> int:
        return self.known_answers + 1


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
    reason: Reason
    turn: int
    decode: Engine
    prefill: Engine | None = None

    @property
    def handoff(self) -> HandoffName:
        return self.decode.handoff


Loads = Mapping[str, int]
"""In-flight tokens by engine id; an absent engine has none."""
