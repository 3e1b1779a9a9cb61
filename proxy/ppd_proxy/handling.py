"""One request's side of the work: who is asking, which plan, what each leg sends, what the client sees, what stays.

Owns the state of a single request between `director.py` and the driver. No sockets, no web framework.
"""

from __future__ import annotations

import msgspec

from ppd_core.conversation.history import History, Home
from ppd_core.fleet.echoes import Expected
from ppd_core.fleet.engine import Engine
from ppd_core.fleet.load import Reservation
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.placement import find_home
from ppd_core.policy.plan import DecisionReason, Demand, Plan
from ppd_proxy import planning
from ppd_proxy.collaborators import Call, Collaborators
from ppd_proxy.core.record import Record
from ppd_proxy.core.signals import LegFailed, LegKind, LegRefused, MakePlan, Planned, Refused
from ppd_proxy.prompt_watch import PromptWatch
from ppd_proxy.remember import Steps, look_up, remember
from ppd_proxy.upstream.leg import Leg
from ppd_proxy.upstream.pool import parse_origin
from ppd_proxy.upstream.sides import LegRequest
from ppd_wire.answers.answer import EngineAnswer, client_body, is_not_a_number, is_too_many_logprobs, read_transfer
from ppd_wire.answers.candidate import Candidate, read_candidate, read_candidate_stream
from ppd_wire.answers.engine_errors import quote, shown_error
from ppd_wire.dialects.dialects import opaque_relay
from ppd_wire.dialects.relay import Relay
from ppd_wire.dialects.sse import MAX_KEPT_BYTES, SseRelay
from ppd_wire.errors import EngineFailure, Failure, NoRoute, ProxyError
from ppd_wire.headers import Headers, forwarded, request_head, returned
from ppd_wire.json import stepwise
from ppd_wire.requests import bodies as leg_bodies
from ppd_wire.requests import generation as chat
from ppd_wire.requests import stepped as requests
from ppd_wire.requests.asked import NOTHING, asked, is_transparent
from ppd_wire.requests.opaque import Opaque, opaque_body
from ppd_wire.requests.prompt_size import opaque_size_bytes, prompt_size_bytes

BYTES_PER_TOKEN = 4
"""For load accounting only: how many bytes of JSON make a token, roughly."""
_RESPONSES = b"/v1/responses"
"""vLLM takes the id of a request here from its body, and with `resp_` before it as the answer's id."""
_NO_DEMAND = Demand(is_split_endpoint=False)
_NOT_A_NUMBER = "the decode engine computed a logprob that is no number"


class Handling:
    """Implements the driver's `Shaper`. `identify` first; it raises BadRequest."""

    def __init__(self, shared: Collaborators, call: Call) -> None:
        self._shared = shared
        self._call = call
        self._public_id = self._key = self._engine_request_id = shared.new_key()
        self._endpoint = call.path.partition(b"?")[0]
        self._generation: chat.Generation | None = None
        self._opaque: Opaque | None = None
        self._is_stream = False
        self._prompts = PromptWatch(shared)
        self._answer: EngineAnswer | None = None
        self._asked = NOTHING
        self._is_scored = False
        self._tops = 0
        self.is_sampled = False
        self.broken_by: Plan | None = None
        """The plan of a sampled attempt whose logprobs were no numbers; it was tried again without asking."""
        self._demand = _NO_DEMAND
        self._steps: Steps = None
        self._reservations: list[Reservation] = []
        self._plan: Plan | None = None
        self._salt = ""
        self._is_complete = False
        self.record = Record(request_id=self._public_id, mode=shared.mode, received_at=call.received_at)

    # -- before routing --

    def identify(self) -> stepwise.Steps[None]:
        """Parse the body and look the history up, a large one in steps; raises BadRequest naming the field."""
        call, shared = self._call, self._shared
        if call.kind is None:
            read = self._opaque = yield from requests.parse_opaque(call.body, shared.stripped_fields)
            yield
            tokens = opaque_size_bytes(read) // BYTES_PER_TOKEN
            self._demand = Demand(is_split_endpoint=False, prompt_tokens=tokens)
            self._is_stream = self.record.is_stream = read.is_stream
            return
        generation = self._generation = yield from requests.parse(call.kind, call.body, shared.stripped_fields)
        self.is_sampled = shared.shadow is not None and shared.shadow.is_sampled(self._public_id)
        self._ask(generation, is_sampled=self.is_sampled)
        self._is_stream = self.record.is_stream = generation.is_stream
        self.record.choices = generation.choices
        history, spread_key = History(), b""
        if not generation.is_multi_sequence:
            known = yield from look_up(shared.conversations, call, generation, shared.loop.time())
            history, spread_key, self._steps = known.history, known.spread_key, known.steps
        self._demand = Demand(
            history=history,
            prompt_tokens=prompt_size_bytes(generation) // BYTES_PER_TOKEN,
            spread_key=spread_key,
            is_multi_sequence=generation.is_multi_sequence,
            wants_prompt_logprobs=generation.wants_prompt_logprobs,
            prompt_depends_on_output=generation.prompt_depends_on_output,
        )
        self.record.turn = history.turn

    def _ask(self, generation: chat.Generation, *, is_sampled: bool) -> None:
        self._is_scored = is_sampled and is_transparent(generation)
        self._asked = asked(generation, is_sampled=self._is_scored)

    @property
    def request_id(self) -> str:
        """The client's own id, else the proxy's."""
        given = self._call.named.get(b"x-request-id")
        return given.decode("latin-1") if given else self._public_id

    @property
    def generation(self) -> chat.Generation | None:
        """None before it was read, and on endpoints that are never split."""
        return self._generation

    # -- Shaper --

    def make_plan(self, command: MakePlan) -> Planned | Refused:
        shared = self._shared
        if self._prompts.doubted:
            command = msgspec.structs.replace(command, failed=command.failed | self._prompts.doubted)
        try:
            plan = planning.make_plan(shared, self._demand, command)
        except NoRoute as error:
            if command.cause is None:
                self.record.reason = error.reason
                shared.observer.decided(shared.mode, "none", self.record.reason)
            else:
                failed = f"{self.record.error}; " if self.record.error else ""
                self.record.error = f"{failed}not tried again: {error.message}"
            return Refused(error)
        if command.cause is DecisionReason.DECODE_FAILED and self._generation is not None:
            self._ask(self._generation, is_sampled=False)  # what we asked for may be why it failed
        self._take(plan, is_retry=command.cause is not None)
        handoff = HANDOFFS[plan.handoff]
        return Planned(
            plan=plan,
            holds_kv=handoff.holds_kv,
            can_cut_prefill=handoff.cancel_prefill == "abort",
            is_rebindable=handoff.is_rebindable,
        )

    def _take(self, plan: Plan, *, is_retry: bool) -> None:
        """Make `plan` the current one: its salt, its reservations, its engine-side id, its place in the record."""
        shared, record = self._shared, self.record
        if is_retry:
            record.retries += 1
        key = self._key = shared.new_key() if is_retry else self._public_id
        self._plan, self._salt = plan, shared.distrust.salt(plan)
        self._engine_request_id = key
        tokens = self._demand.prompt_tokens
        self._reservations.append(shared.load.reserve(plan.decode.id, tokens))
        if plan.prefill is not None:
            self._reservations.append(shared.load.reserve(plan.prefill.id, tokens))
            held_tokens = 0 if is_retry else self._held_tokens(plan)  # what failed once gets everything anew
            self._engine_request_id = HANDOFFS[plan.handoff].request_id(plan.prefill, plan.decode, key, held_tokens)
        record.route, record.reason, record.turn = plan.route, plan.reason, plan.turn
        record.decode_id, record.handoff = plan.decode.id, plan.handoff
        record.prefill_id = plan.prefill.id if plan.prefill is not None else None
        shared.observer.decided(shared.mode, plan.route, plan.reason)

    def _held_tokens(self, plan: Plan) -> int:
        """How many of the prompt's first tokens the plan's decode engine holds KV of, as far as the history tells.

        One less than the history counts: the KV of an answer's last token was never computed, because no token was
        sampled after it.
        """
        home = self._found_home(plan)
        return max(0, home.held_tokens - 1) if home is not None else 0

    def _found_home(self, plan: Plan) -> Home | None:
        """The conversation's home if the plan's decode leg finds its KV there."""
        home = self._demand.history.home
        is_found = home is not None and home.salt == self._salt and find_home(home, (plan.decode,)) is not None
        return home if is_found else None

    def _filled_by(self, plan: Plan) -> tuple[str, ...]:
        """The prefill engines whose KV the answer of this plan relies on."""
        home, prefill = self._found_home(plan), plan.prefill
        before = home.filled_by if home is not None else ()
        if prefill is None or self.record.has_kv is False or prefill.id in before:
            return before
        return (*before, prefill.id)

    def shape(self, kind: LegKind, plan: Plan, params: bytes | None) -> LegRequest:
        engine, body, relay = self._leg(kind, plan, params)
        origin = parse_origin(engine.url)
        lines = self._call.forwarded.get(engine.is_trusted)
        if lines is None:
            lines = forwarded(self._call.headers, self._shared.engine_authorization, is_trusted=engine.is_trusted)
            self._call.forwarded[engine.is_trusted] = lines
        head = request_head(self._call.path, origin.authority, self._engine_request_id, lines, len(body))
        consumes_kv = plan.prefill is not None and kind != "prefill" and HANDOFFS[plan.handoff].holds_kv
        return LegRequest(
            origin=origin,
            head=head,
            body=body,
            relay=relay,
            expected=Expected(
                self._key.encode(), self._shared.echoes.of(engine, self._endpoint, is_stream=relay is not None)
            ),
            dialect=self._call.dialect,
            asked=self._asked if kind == "decode" else NOTHING,
            is_retriable=not consumes_kv,
            is_fresh=consumes_kv and self.record.retries > 0,
        )

    def _leg(
        self, kind: LegKind, plan: Plan, params: bytes | None
    ) -> tuple[Engine, bytes, Relay | None]:
        generation = self._generation
        hidden, public = self._engine_request_id.encode(), self._public_id.encode()
        salt = self._salt or None
        relay: Relay | None = None
        if self._opaque is not None:
            own_id = f"resp_{self._engine_request_id}" if self._endpoint == _RESPONSES else None
            body = opaque_body(self._opaque, salt=salt, request_id=own_id)
            relay = opaque_relay(self._call.dialect, hidden_id=hidden, public_id=public) if self._is_stream else None
            return plan.decode, body, relay
        if generation is None:
            raise RuntimeError("a leg before its request was read")
        if kind == "prefill" and plan.prefill is not None:
            return plan.prefill, leg_bodies.prefill_body(generation, HANDOFFS[plan.handoff].prefill_params), None
        check = self._prompts.begin() if kind == "decode" and plan.prefill is not None else None
        if kind == "release":
            return plan.decode, leg_bodies.prefill_body(generation, params, salt=salt), None
        self._tops = self._shared.shadow.asked_tops if self._shared.shadow is not None and self._asked.logprobs else 0
        if generation.is_stream:
            relay = SseRelay(
                hidden_id=hidden,
                public_id=public,
                drop_usage=not generation.wants_usage,
                asked=self._asked,
                check=check,
                max_kept_bytes=MAX_KEPT_BYTES * (1 + self._tops // 2),
            )
        body = leg_bodies.decode_body(generation, params, self._asked, top_logprobs=self._tops, salt=salt)
        return plan.decode, body, relay

    def response_headers(self, leg: Leg) -> Headers:
        return returned(leg.headers, self.own_headers())

    def own_headers(self) -> Headers:
        """What every generation answer carries."""
        record = self.record
        decision = f"{record.route};reason={record.reason};turn={record.turn}"
        return [(b"x-ppd-decision", decision.encode()), (b"x-request-id", self.request_id.encode("latin-1"))]

    def response_body(self, leg: Leg) -> bytes | None:
        hidden, public = self._engine_request_id.encode(), self._public_id.encode()
        if leg.status != 200:
            return shown_error(leg.body, hidden_id=hidden, public_id=public)
        return client_body(leg.body, hidden_id=hidden, public_id=public, asked=self._asked)

    def unseen_error(self, leg: Leg, status: int) -> EngineFailure:
        words = quote(leg.status, leg.body, hidden_id=self._engine_request_id.encode())
        return EngineFailure(words, reason=Failure.ENGINE_ERROR, status=status)

    def candidate_bytes(self, leg: Leg) -> int:
        """How much `candidate` has to read."""
        return leg.relay.kept_bytes if isinstance(leg.relay, SseRelay) else len(leg.body)

    def candidate(self, leg: Leg) -> Candidate | None:
        """What a sampled request's whole answer said, to be held against a baseline's; None where that cannot be: the
        request cannot be asked, the answer failed or is too long to keep, or ids and logprobs do not fit together."""
        generation = self._generation
        if generation is None or not self._is_scored or leg.status != 200 or self._prompts.doubted:
            return None  # the legs' prompts are counted, not sampled
        if not leg.is_stream or not isinstance(leg.relay, SseRelay):
            return read_candidate(generation.kind, leg.body)
        stream = leg.relay.raw
        return read_candidate_stream(generation.kind, stream) if stream is not None else None

    def answer_complete(self, leg: Leg) -> None:
        if self._is_complete or leg.status != 200:
            return
        self._is_complete = True
        answer = self._answer or self._read(leg)
        if self._plan is not None:
            self.record.filled_by = self._filled_by(self._plan)
            if self._plan.prefill is not None:
                self._prompts.complete(self._plan, answer)
        if not leg.is_stream:
            self.record.transfer = read_transfer(leg.body)
        if answer is None:
            return
        usage = answer.usage
        if usage is not None:
            self.record.prompt_tokens = usage.prompt_tokens
            self.record.completion_tokens = usage.completion_tokens
            self.record.cached_tokens = usage.cached_tokens
        is_broken = leg.relay is not None and leg.relay.error is not None
        if self._generation is not None and answer.is_single and answer.is_finished and not is_broken:
            self._remember(self._generation, answer)

    def _read(self, leg: Leg) -> EngineAnswer | None:
        return leg.relay.answer() if leg.is_stream and leg.relay is not None else leg.answer

    def _remember(self, generation: chat.Generation, answer: EngineAnswer) -> None:
        plan, store, now = self._plan, self._shared.conversations, self._shared.loop.time()
        if plan is None:
            return
        prompt_tokens = self.record.prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = self._demand.prompt_tokens
        held_tokens = prompt_tokens + (self.record.completion_tokens or 0)
        home = Home(
            engine_id=plan.decode.id,
            incarnation=plan.decode.incarnation,
            held_tokens=held_tokens,
            filled_by=self.record.filled_by,
            salt=self._salt,
        )
        remember(store, generation, answer, self._steps, home=home, prompt_tokens=prompt_tokens, now=now)

    def release(self) -> None:
        for reservation in self._reservations:
            reservation.release()
        self._reservations.clear()

    def given_back(self) -> None:
        self._shared.observer.kv_released()

    def stranded(self) -> None:
        self._shared.observer.kv_stranded()

    def handed_over(self, *, has_kv: bool, prompt_tokens: int | None) -> None:
        self.record.has_kv = has_kv
        self._prompts.prefilled(prompt_tokens)

    def two_prompts(self, leg: Leg) -> LegFailed | None:
        if self._plan is None or self._plan.prefill is None or not self._prompts.is_open:
            return None
        answer = self._read(leg)
        failure = self._prompts.compare(answer)
        self._answer = answer if failure is None else None
        return failure

    def broken_by_asking(self, leg: Leg) -> LegFailed | LegRefused | None:
        if not self._asked.logprobs:
            return None
        if is_not_a_number(leg.body):
            self.broken_by = self._plan
            return LegFailed(error=EngineFailure(_NOT_A_NUMBER, reason=Failure.ENGINE_ERROR), is_our_doing=True)
        if self._tops and self._shared.shadow is not None and is_too_many_logprobs(leg.body, "sample", self._tops):
            self._shared.shadow.ask_no_tops(self.record.decode_id or "the decode engine", self._tops)
            self.record.error = f"the decode engine refused the {self._tops} logprobs that the accuracy check asked for"
            return LegRefused()
        return None

    def leg_ended(self, plan: Plan, kind: LegKind, failure: str | None) -> None:
        engine = plan.prefill if kind == "prefill" and plan.prefill is not None else plan.decode
        if failure is not None or engine.id in self._shared.fleet.failing:
            planning.note_answer(self._shared, engine, failure=failure, tokens=self._demand.prompt_tokens)

    def leg_failed(self, plan: Plan, kind: LegKind, event: LegFailed) -> None:
        self.record.error = event.error.message
        if kind == "decode":
            self._prompts.failed(plan)
        engine = plan.prefill if kind == "prefill" and plan.prefill is not None else plan.decode
        planning.note_failure(self._shared, engine, event, tokens=self._demand.prompt_tokens)

    # -- after the answer --

    def refuse(self, error: ProxyError) -> None:
        """The request never reached a route."""
        self.record.route, self.record.reason = "none", error.reason
        self.record.error = error.message
        self._shared.observer.decided(self._shared.mode, "none", self.record.reason)

    def close(self, leg: Leg | None) -> None:
        """Complete the record from the leg whose answer the client got."""
        record = self.record
        record.ended_at = self._shared.loop.time()
        if leg is not None:
            record.decode_opened_at = leg.opened_at
            record.first_token_at, record.last_token_at = leg.first_token_at, leg.last_token_at
