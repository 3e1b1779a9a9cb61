"""What the steps of an exchange mean for one request: its attempts, its legs, its answer, and what stays of it. Pure.

The driver asks, in the order that the exchange gives; everything it is told goes into the request's `Ongoing`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec
from mypy_extensions import mypyc_attr

from ppd_core.conversation.history import Home
from ppd_core.policy.plan import Mode, Route
from ppd_proxy.request.answering import own_headers, shown_body, unseen_error, unseen_headers
from ppd_proxy.request.attempt import Attempt
from ppd_proxy.request.exchange import Exchange
from ppd_proxy.request.legs import Legs
from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.request.planner import Planner
from ppd_proxy.request.prompt_watch import PromptWatch
from ppd_proxy.request.record import Record
from ppd_proxy.request.remember import Memory
from ppd_proxy.request.request import Call, Request
from ppd_proxy.request.signals import DeadlinePassed, LegRefused, MakePlan, OpenLeg, Planned, Refused
from ppd_proxy.upstream.events import LegEnded, LegFailed, LegKind
from ppd_proxy.upstream.leg_request import LegRequest
from ppd_wire.answers.answer import EngineAnswer, is_not_a_number, is_too_many_logprobs, read_transfer
from ppd_wire.dialects.dialects import HandedOver
from ppd_wire.dialects.relay import Relay
from ppd_wire.errors import EngineFailure, Failure, NoRoute, ProxyError
from ppd_wire.headers import Headers, returned

_NOT_A_NUMBER = "the decode engine computed a logprob that is no number"


class Deciding(Protocol):
    """Who wants to know where requests go, and what becomes of KV that is held for them."""

    def decided(self, mode: Mode, route: Route, reason: StrEnum) -> None: ...

    def kv_released(self) -> None: ...

    def kv_stranded(self) -> None: ...


class Tops(Protocol):
    """The accuracy check's wish for the likeliest tokens (see `ShadowSink`)."""

    @property
    def asked_tops(self) -> int: ...

    def ask_no_tops(self, refused_by: str, count: int) -> None: ...


class AnswerOf(Protocol):
    """A leg, as far as its answer goes: see `upstream/leg.py`."""

    kind: LegKind
    status: int
    headers: Headers
    body: bytes
    is_stream: bool
    relay: Relay | None
    answer: EngineAnswer | None
    prefilled: HandedOver | None


@mypyc_attr(allow_interpreted_subclasses=True)
class Serving:
    """`new_key` gives 32 hex digits that nobody was given before."""

    def __init__(
        self,
        planner: Planner,
        legs: Legs,
        prompts: PromptWatch,
        memory: Memory,
        tops: Tops,
        observer: Deciding,
        new_key: Callable[[], str],
    ) -> None:
        self._planner = planner
        self._legs = legs
        self._prompts = prompts
        self._memory = memory
        self._tops = tops
        self._observer = observer
        self._new_key = new_key

    def begin(self, call: Call, exchange: Exchange, on_end: Callable[[Exception | None], None]) -> Ongoing:
        record = Record(
            request_id=self._new_key(), mode=self._planner.mode, received_at=call.received_at, path=call.envelope.path
        )
        return Ongoing(call, record, exchange, on_end)

    def refuse(self, ongoing: Ongoing, error: ProxyError) -> None:
        """The request never reached a route."""
        record = ongoing.record
        record.route, record.reason, record.error = "none", error.reason, error.message
        self._observer.decided(record.mode, "none", record.reason)

    # -- plans --

    def plan(self, ongoing: Ongoing, command: MakePlan) -> Planned | Refused:
        """Another attempt, if there is one to be had."""
        request, record = _read(ongoing), ongoing.record
        if ongoing.doubted:
            command = msgspec.structs.replace(command, failed=command.failed | ongoing.doubted)
        is_retry = command.cause is not None
        try:
            attempt = self._planner.attempt(request, self._new_key() if is_retry else request.public_id, command)
        except NoRoute as error:
            if not is_retry:
                record.reason = error.reason
                self._observer.decided(record.mode, "none", record.reason)
            else:
                failed = f"{record.error}; " if record.error else ""
                record.error = f"{failed}not tried again: {error.message}"
            return Refused(error)
        ongoing.attempt = attempt
        plan, handoff = attempt.plan, attempt.handoff
        record.retries += is_retry
        record.route, record.reason, record.turn = plan.route, plan.reason, plan.turn
        record.decode_id, record.handoff = plan.decode.id, plan.handoff
        record.prefill_id = plan.prefill.id if plan.prefill is not None else None
        self._observer.decided(record.mode, plan.route, plan.reason)
        return Planned(
            plan=plan,
            holds_kv=handoff.holds_kv,
            can_cut_prefill=handoff.cancel_prefill == "abort",
            is_rebindable=handoff.is_rebindable,
        )

    def release(self, ongoing: Ongoing) -> None:
        """The last attempt is over."""
        if ongoing.attempt is not None:
            ongoing.attempt.release()

    def give_back(self) -> None:
        """A handoff is given up; a leg is open to make the decode engine free what the prefill engine holds."""
        self._observer.kv_released()

    def strand(self) -> None:
        self._observer.kv_stranded()

    # -- legs --

    def leg(self, ongoing: Ongoing, command: OpenLeg) -> LegRequest:
        request, attempt = _read(ongoing), _tried(ongoing)
        if command.kind == "prefill":
            return self._legs.prefill(request, attempt)
        if command.kind == "release":
            return self._legs.release(request, attempt, handed=ongoing.handed, is_apart=command.is_apart)
        check = self._prompts.begin(ongoing) if attempt.plan.prefill is not None else None
        ongoing.tops = self._tops.asked_tops if attempt.asked.logprobs else 0
        return self._legs.decode(request, attempt, handed=ongoing.handed, check=check, tops=ongoing.tops)

    def judge(
        self, ongoing: Ongoing, leg: AnswerOf, event: LegEnded | LegFailed | DeadlinePassed
    ) -> LegEnded | LegFailed | LegRefused | DeadlinePassed:
        """What the end of a leg means. Engines' failures are counted; a release leg's answer serves nobody."""
        if leg.kind == "release":
            return event
        judged = self._judged(ongoing, leg, event) if isinstance(event, LegEnded) else event
        plan = _tried(ongoing).plan
        engine = plan.prefill if leg.kind == "prefill" and plan.prefill is not None else plan.decode
        tokens = _read(ongoing).demand.prompt_tokens
        if isinstance(judged, LegEnded):
            is_failure = judged.status >= 500 and not judged.is_client_fault
            self._planner.note_answer(engine, failure=f"status {judged.status}" if is_failure else None, tokens=tokens)
        elif isinstance(judged, LegFailed):
            ongoing.record.error = judged.error.message
            if leg.kind == "decode":
                self._prompts.failed(ongoing, plan)
            self._planner.note_failure(engine, judged, tokens=tokens)
        elif isinstance(judged, DeadlinePassed) and judged.deadline != "release":
            self._planner.note_answer(engine, failure=f"the {judged.deadline} deadline passed", tokens=tokens)
        return judged

    def _judged(self, ongoing: Ongoing, leg: AnswerOf, event: LegEnded) -> LegEnded | LegFailed | LegRefused:
        if leg.kind == "prefill":
            return event if leg.prefilled is None else self._handed_over(ongoing, leg.prefilled, event)
        if event.status >= 400:
            return self._broken_by_asking(ongoing, leg) or event
        if leg.is_stream or ongoing.check is None or ongoing.check.result is not None:
            return event  # a stream's relay compares the prompts itself
        return self._prompts.compare(ongoing.check, leg.answer) or event

    def _handed_over(self, ongoing: Ongoing, handed: HandedOver, event: LegEnded) -> LegEnded | LegFailed:
        """A prefill answer, as its handoff reads it."""
        handoff = _tried(ongoing).handoff
        ongoing.handed = handed
        has_kv = True
        if handoff.takes_params:
            mistake = handoff.check_params(handed.params) if handed.params is not None else None
            if mistake is not None:
                return LegFailed(error=EngineFailure(mistake, reason=Failure.ENGINE_ERROR))
            has_kv = handed.params is not None
        ongoing.record.has_kv = has_kv
        return LegEnded(status=event.status, has_kv=has_kv)

    def _broken_by_asking(self, ongoing: Ongoing, leg: AnswerOf) -> LegFailed | LegRefused | None:
        """What it means where an engine refused what the proxy asked for beside the client's wishes."""
        attempt, tops = _tried(ongoing), ongoing.tops
        if not attempt.asked.logprobs:
            return None
        if is_not_a_number(leg.body):
            ongoing.broken_by = attempt.plan
            return LegFailed(error=EngineFailure(_NOT_A_NUMBER, reason=Failure.ENGINE_ERROR), is_our_doing=True)
        if tops and is_too_many_logprobs(leg.body, "sample", tops):
            self._tops.ask_no_tops(attempt.plan.decode.id, tops)
            ongoing.record.error = f"the decode engine refused the {tops} logprobs that the accuracy check asked for"
            return LegRefused()
        return None

    # -- the answer --

    def own_headers(self, ongoing: Ongoing) -> Headers:
        return own_headers(ongoing.record, ongoing.shown_id)

    def response_headers(self, ongoing: Ongoing, leg: AnswerOf) -> Headers:
        return returned(leg.headers, own_headers(ongoing.record, ongoing.shown_id))

    def response_body(self, ongoing: Ongoing, leg: AnswerOf) -> bytes | None:
        """None for an error that the client may not see."""
        attempt = _tried(ongoing)
        return shown_body(
            leg.status,
            leg.body,
            hidden_id=attempt.hidden_id,
            public_id=ongoing.record.request_id.encode(),
            asked=attempt.asked,
        )

    def unseen_error(self, ongoing: Ongoing, leg: AnswerOf, status: int) -> tuple[EngineFailure, Headers]:
        """What the client gets instead, with the status `status`."""
        error = unseen_error(leg.status, leg.body, hidden_id=_tried(ongoing).hidden_id, shown_status=status)
        return error, unseen_headers(leg.headers, self.own_headers(ongoing), status)

    def complete(self, ongoing: Ongoing, leg: AnswerOf) -> None:
        """The answer is whole; called before its last bytes leave, so that the next turn finds it remembered."""
        if ongoing.is_complete or leg.status != 200:
            return
        ongoing.is_complete = True
        request, attempt, record = _read(ongoing), _tried(ongoing), ongoing.record
        answer = leg.relay.answer() if leg.is_stream and leg.relay is not None else leg.answer
        record.filled_by = attempt.filled_by(has_kv=record.has_kv)
        if ongoing.check is not None:
            self._prompts.complete(ongoing, attempt.plan, answer)
        if not leg.is_stream:
            record.transfer = read_transfer(leg.body)
        if answer is None:
            return
        if answer.usage is not None:
            record.prompt_tokens = answer.usage.prompt_tokens
            record.completion_tokens = answer.usage.completion_tokens
            record.cached_tokens = answer.usage.cached_tokens
        is_broken = leg.relay is not None and leg.relay.error is not None
        if answer.is_single and answer.is_finished and not is_broken:
            self._remember(request, attempt, ongoing, answer)

    def _remember(self, request: Request, attempt: Attempt, ongoing: Ongoing, answer: EngineAnswer) -> None:
        generation, record, decode = request.generation, ongoing.record, attempt.plan.decode
        if generation is None:
            return
        prompt_tokens = record.prompt_tokens if record.prompt_tokens is not None else request.demand.prompt_tokens
        home = Home(
            engine_id=decode.id,
            incarnation=decode.incarnation,
            held_tokens=prompt_tokens + (record.completion_tokens or 0),
            filled_by=record.filled_by,
            salt=attempt.salt,
        )
        self._memory.remember(generation, answer, request.steps, home=home, prompt_tokens=prompt_tokens)


def _read(ongoing: Ongoing) -> Request:
    if ongoing.request is None:
        raise RuntimeError("a step of a request that was not read")
    return ongoing.request


def _tried(ongoing: Ongoing) -> Attempt:
    if ongoing.attempt is None:
        raise RuntimeError("a step of an attempt that was not made")
    return ongoing.attempt
