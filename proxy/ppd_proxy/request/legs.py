"""The bytes of each leg: head, body, and what reads its answer. Pure."""

from __future__ import annotations

from ppd_core.fleet.echoes import Echoes, Expected
from ppd_core.fleet.engine import Engine
from ppd_core.handoff.rules import Handoff
from ppd_proxy.request.attempt import Attempt
from ppd_proxy.request.request import Request
from ppd_proxy.upstream.leg_request import LegRequest, parse_origin
from ppd_wire.answers.prompt_counts import PromptCheck
from ppd_wire.dialects.dialects import HandedOver, opaque_relay
from ppd_wire.dialects.relay import Relay
from ppd_wire.dialects.sse import MAX_KEPT_BYTES, SseRelay
from ppd_wire.headers import forwarded, request_head
from ppd_wire.requests import bodies
from ppd_wire.requests.asked import NOTHING, Asked
from ppd_wire.requests.generation import Generation
from ppd_wire.requests.opaque import Opaque, opaque_body

_RESPONSES = b"/v1/responses"
"""vLLM takes the id of a request here from its body, and with `resp_` before it as the answer's id."""


class Legs:
    """`engine_authorization` replaces the clients' own at engines that are trusted."""

    def __init__(self, echoes: Echoes, engine_authorization: bytes | None) -> None:
        self._echoes = echoes
        self._engine_authorization = engine_authorization

    def prefill(self, request: Request, attempt: Attempt) -> LegRequest:
        engine = attempt.plan.prefill
        if engine is None:
            raise ValueError(f"a prefill leg on route {attempt.plan.route}")
        body = bodies.prefill_body(_split(request), attempt.handoff.prefill_params)
        return self._leg(request, attempt, engine, body)

    def decode(
        self, request: Request, attempt: Attempt, *, handed: HandedOver | None, check: PromptCheck | None, tops: int
    ) -> LegRequest:
        """`handed` is what the prefill leg handed over, `check` compares its prompt with this leg's; `tops` is how many
        of the likeliest tokens the answer's logprobs come with, if it has any."""
        engine, salt = attempt.plan.decode, attempt.salt or None
        if request.opaque is not None:
            body, reader = _opaque_leg(request, request.opaque, attempt)
            return self._leg(request, attempt, engine, body, reader)
        generation = _split(request)
        relay: Relay | None = None
        if generation.is_stream:
            relay = SseRelay(
                hidden_id=attempt.hidden_id,
                public_id=request.public_id.encode(),
                drop_usage=not generation.wants_usage,
                asked=attempt.asked,
                check=check,
                keeps_raw=attempt.is_scored,
                max_kept_bytes=MAX_KEPT_BYTES * (1 + tops // 2),
            )
        params = _params(attempt.handoff, handed) if attempt.plan.prefill is not None else None
        body = bodies.decode_body(generation, params, attempt.asked, top_logprobs=tops, salt=salt)
        return self._leg(request, attempt, engine, body, relay, attempt.asked)

    def release(self, request: Request, attempt: Attempt, *, handed: HandedOver | None, is_apart: bool) -> LegRequest:
        """A decode leg of one token, for what the decode engine then frees. `is_apart`: under a salt of its own."""
        salt = f"ppd-{attempt.key}-apart" if is_apart else attempt.salt or None
        body = bodies.prefill_body(_split(request), _params(attempt.handoff, handed), salt=salt)
        return self._leg(request, attempt, attempt.plan.decode, body)

    def _leg(
        self,
        request: Request,
        attempt: Attempt,
        engine: Engine,
        body: bytes,
        relay: Relay | None = None,
        asked: Asked = NOTHING,
    ) -> LegRequest:
        envelope, origin = request.call.envelope, parse_origin(engine.url)
        lines = envelope.forwarded.get(engine.is_trusted)
        if lines is None:
            lines = forwarded(envelope.headers, self._engine_authorization, is_trusted=engine.is_trusted)
            envelope.forwarded[engine.is_trusted] = lines
        plan = attempt.plan
        consumes_kv = plan.prefill is not None and engine is plan.decode and attempt.handoff.holds_kv
        return LegRequest(
            origin=origin,
            head=request_head(envelope.path, origin.authority, attempt.engine_id, lines, len(body)),
            body=body,
            relay=relay,
            dialect=envelope.dialect,
            is_retriable=not consumes_kv,
            asked=asked,
            is_fresh=consumes_kv and attempt.is_retry,
            expected=Expected(
                attempt.key.encode(), self._echoes.of(engine, envelope.endpoint, is_stream=relay is not None)
            ),
        )


def _split(request: Request) -> Generation:
    if request.generation is None:
        raise ValueError("a leg of a split endpoint, for a request to another")
    return request.generation


def _params(handoff: Handoff, handed: HandedOver | None) -> bytes | None:
    return handed.params if handed is not None and handoff.takes_params else None


def _opaque_leg(request: Request, opaque: Opaque, attempt: Attempt) -> tuple[bytes, Relay | None]:
    own_id = f"resp_{attempt.engine_id}" if request.call.envelope.endpoint == _RESPONSES else None
    body = opaque_body(opaque, salt=attempt.salt or None, request_id=own_id)
    if not opaque.is_stream:
        return body, None
    public_id = request.public_id.encode()
    return body, opaque_relay(request.call.envelope.dialect, hidden_id=attempt.hidden_id, public_id=public_id)
