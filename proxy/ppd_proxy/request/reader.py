"""From a call to what it asks: the body is parsed, and its history looked up. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ppd_core.conversation.history import History, KnownHistory
from ppd_core.policy.plan import Demand
from ppd_proxy.request.remember import Looking, Memory
from ppd_proxy.request.request import Call, Request
from ppd_wire.json.stepwise import LARGE_BYTES
from ppd_wire.requests import stepped
from ppd_wire.requests.asked import asked, is_transparent
from ppd_wire.requests.generation import Generation, parse
from ppd_wire.requests.opaque import Opaque, parse_opaque
from ppd_wire.requests.prompt_size import opaque_size_bytes, prompt_size_bytes

BYTES_PER_TOKEN = 4
"""For load accounting only: how many bytes of JSON make a token, roughly."""
_UNKNOWN = KnownHistory(History(), b"", None)


class Reader:
    """`is_sampled` says of a request's id whether the accuracy check wants its answer; `stripped_fields` of bodies
    reach no engine."""

    def __init__(self, memory: Memory, is_sampled: Callable[[str], bool], stripped_fields: frozenset[str]) -> None:
        self._memory = memory
        self._is_sampled = is_sampled
        self._stripped_fields = stripped_fields

    def read(self, call: Call, public_id: str) -> Request | Looking[Request]:
        """What is asked, or the steps in which it is read: of a large body, or where the history has to be awaited.
        Raises BadRequest naming the field."""
        body, kind = call.body, call.envelope.kind
        if len(body) > LARGE_BYTES:
            return self._in_steps(call, public_id)
        if kind is None:
            return _opaque(call, public_id, parse_opaque(body, self._stripped_fields))
        generation = parse(kind, body, self._stripped_fields)
        if generation.is_multi_sequence:
            return self._request(call, public_id, generation, _UNKNOWN)
        known = self._memory.look_up(call.envelope, generation)
        if isinstance(known, KnownHistory):
            return self._request(call, public_id, generation, known)
        return self._once(known, call, public_id, generation)

    def _in_steps(self, call: Call, public_id: str) -> Looking[Request]:
        kind = call.envelope.kind
        if kind is None:
            opaque = yield from stepped.parse_opaque(call.body, self._stripped_fields)
            yield None
            return _opaque(call, public_id, opaque)
        generation = yield from stepped.parse(kind, call.body, self._stripped_fields)
        if generation.is_multi_sequence:
            return self._request(call, public_id, generation, _UNKNOWN)
        looking = self._memory.look_up_large(call.envelope, generation)
        return (yield from self._once(looking, call, public_id, generation))

    def _once(
        self, looking: Looking[KnownHistory], call: Call, public_id: str, generation: Generation
    ) -> Looking[Request]:
        known = yield from looking
        return self._request(call, public_id, generation, known)

    def _request(self, call: Call, public_id: str, generation: Generation, known: KnownHistory) -> Request:
        is_sampled = self._is_sampled(public_id)
        is_scored = is_sampled and is_transparent(generation)
        plainly_asked = asked(generation, is_sampled=False)
        return Request(
            call=call,
            public_id=public_id,
            generation=generation,
            steps=known.steps,
            is_sampled=is_sampled,
            is_scored=is_scored,
            asked=asked(generation, is_sampled=True) if is_scored else plainly_asked,
            plainly_asked=plainly_asked,
            demand=Demand(
                history=known.history,
                prompt_tokens=prompt_size_bytes(generation) // BYTES_PER_TOKEN,
                spread_key=known.spread_key,
                is_multi_sequence=generation.is_multi_sequence,
                wants_prompt_logprobs=generation.wants_prompt_logprobs,
                prompt_depends_on_output=generation.prompt_depends_on_output,
            ),
        )


def _opaque(call: Call, public_id: str, opaque: Opaque) -> Request:
    demand = Demand(is_split_endpoint=False, prompt_tokens=opaque_size_bytes(opaque) // BYTES_PER_TOKEN)
    return Request(call=call, public_id=public_id, demand=demand, opaque=opaque)
