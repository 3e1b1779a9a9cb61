"""From a finished request to a sample for the accuracy check; after the client has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ppd_core.policy.plan import Route
from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.request.record import Record
from ppd_proxy.request.request import Request
from ppd_proxy.shadow.sample import Sample, sampling_of
from ppd_wire.answers.candidate import Candidate, read_candidate, read_candidate_stream
from ppd_wire.dialects.relay import Relay
from ppd_wire.dialects.sse import READ_BYTES, SseRelay
from ppd_wire.requests.asked import is_scorable
from ppd_wire.requests.generation import Generation

_text = msgspec.json.Decoder(str)
_NO_CANDIDATE = Candidate(
    prompt_token_ids=None, token_ids=[], logprobs=[], tops=[], finish_reason=None, text="", tool_calls=[]
)


class ShadowSink(Protocol):
    """What takes samples of finished requests."""

    @property
    def asked_tops(self) -> int:
        """How many of the likeliest tokens the decode leg of a sampled request asks for."""

    def is_sampled(self, request_id: str) -> bool: ...

    def ask_no_tops(self, refused_by: str, count: int) -> None:
        """An engine refuses `count` of them: from now on none are asked for."""

    def takes(self, body_bytes: int) -> bool:
        """Whether it would take a sample of a request of that size now; one that it would not is counted as dropped."""

    def offer(self, sample: Sample) -> None: ...

    def broke(self, sample: Sample) -> None:
        """A sampled attempt whose logprobs were no numbers."""

    def skip(self, route: Route) -> None:
        """A sampled request whose answer cannot be held against a baseline's."""


class Answered(Protocol):
    """The leg whose answer the client got."""

    status: int
    body: bytes
    is_stream: bool
    relay: Relay | None


class Sampling:
    """`sink` is None where nobody wants samples. `wall_clock` gives seconds since 1970: samples say when they were
    taken."""

    def __init__(self, sink: ShadowSink | None, wall_clock: Callable[[], float]) -> None:
        self.sink = sink
        self._wall_clock = wall_clock

    def is_sampled(self, public_id: str) -> bool:
        return self.sink is not None and self.sink.is_sampled(public_id)

    @property
    def asked_tops(self) -> int:
        return self.sink.asked_tops if self.sink is not None else 0

    def ask_no_tops(self, refused_by: str, count: int) -> None:
        if self.sink is not None:
            self.sink.ask_no_tops(refused_by, count)

    async def offer(self, ongoing: Ongoing, leg: Answered | None) -> None:
        """Make a sample of a request that `is_sampled`. A long answer is read beside the loop."""
        sink, record, request = self.sink, ongoing.record, ongoing.request
        if sink is None or request is None:
            return
        broken = broken_sample(ongoing, request, self._wall_clock())
        if broken is not None:
            sink.broke(broken)
            return
        if record.route not in ("pd", "direct") or record.status != 200 or record.is_client_gone:
            return  # an unsplit engine's answer, or none
        if request.generation is not None and not sink.takes(len(request.generation.body)):
            return  # before the answer is read, which may be long
        candidate = None
        if leg is not None:
            is_long = candidate_bytes(leg) > READ_BYTES
            candidate = await asyncio.to_thread(candidate_of, ongoing, leg) if is_long else candidate_of(ongoing, leg)
        sample = sample_of(record, request, ongoing.shown_id, candidate, self._wall_clock())
        if sample is None:
            sink.skip(record.route)
        else:
            sink.offer(sample)


def candidate_bytes(leg: Answered) -> int:
    """How much `candidate_of` has to read."""
    return leg.relay.kept_bytes if isinstance(leg.relay, SseRelay) else len(leg.body)


def candidate_of(ongoing: Ongoing, leg: Answered) -> Candidate | None:
    """What a whole answer said, to be held against a baseline's; None where that cannot be: the request cannot be
    asked, the answer failed or is too long to keep, or ids and logprobs do not fit together."""
    request, attempt = ongoing.request, ongoing.attempt
    if request is None or request.generation is None or attempt is None or not attempt.is_scored:
        return None
    if leg.status != 200 or ongoing.doubted:
        return None  # legs of two prompts are counted, not sampled
    kind = request.generation.kind
    if not leg.is_stream or not isinstance(leg.relay, SseRelay):
        return read_candidate(kind, leg.body)
    stream = leg.relay.raw
    return read_candidate_stream(kind, stream) if stream is not None else None


def sample_of(
    record: Record, request: Request, shown_id: str, candidate: Candidate | None, at: float
) -> Sample | None:
    """The sample; None where there is nothing to hold against a baseline: no whole answer, or one without token ids."""
    generation = request.generation
    if candidate is None or generation is None or record.decode_id is None:
        return None
    if not candidate.token_ids or candidate.finish_reason is None:
        return None
    return _sample(
        generation,
        request.call.envelope.endpoint,
        id=shown_id,
        at=at,
        route=record.route,
        reason=record.reason,
        turn=record.turn,
        prefill_id=record.prefill_id,
        decode_id=record.decode_id,
        filled_by=record.filled_by,
        is_scorable=is_scorable(generation),
        prompt_tokens=len(candidate.prompt_token_ids or ()) or record.prompt_tokens or 0,
        candidate=candidate,
        transfer=record.transfer,
    )


def broken_sample(ongoing: Ongoing, request: Request, at: float) -> Sample | None:
    """A sample without tokens, for an attempt whose logprobs were no numbers; None where there was none."""
    plan, generation, record = ongoing.broken_by, request.generation, ongoing.record
    if plan is None or generation is None or plan.route not in ("pd", "direct"):
        return None
    prefill_id = plan.prefill.id if plan.prefill is not None else None
    return _sample(
        generation,
        request.call.envelope.endpoint,
        id=f"{ongoing.shown_id}-broken",
        at=at,
        route=plan.route,
        reason=plan.reason,
        turn=plan.turn,
        prefill_id=prefill_id,
        decode_id=plan.decode.id,
        filled_by=(prefill_id,) if prefill_id is not None else record.filled_by,
        is_scorable=False,
        prompt_tokens=record.prompt_tokens or 0,
        candidate=_NO_CANDIDATE,
    )


def _sample(generation: Generation, endpoint: bytes, **facts: Any) -> Sample:  # noqa: ANN401
    """With what the request itself says."""
    return Sample(
        kind=generation.kind,
        path=endpoint.decode("latin-1"),
        fields=generation.fields,
        body=generation.body,
        model=_model(generation.fields.get("model")),
        sampling=sampling_of(generation.fields),
        **facts,
    )


def _model(raw: msgspec.Raw | None) -> str:
    try:
        return _text.decode(raw) if raw is not None else ""
    except msgspec.DecodeError:
        return ""
