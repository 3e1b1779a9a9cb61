"""From a finished request to a sample for the shadow. Called after the client has its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ppd_proxy.handling import Handling
from ppd_proxy.shadow.sample import Sample, sampling_of
from ppd_wire.answers.candidate import Candidate
from ppd_wire.requests.asked import is_scorable
from ppd_wire.requests.generation import Generation

_text = msgspec.json.Decoder(str)


def sample_of(
    handling: Handling, candidate: Candidate | None, path: bytes, wall_clock: Callable[[], float]
) -> Sample | None:
    """The sample; None where there is nothing to hold against a baseline: no whole answer, or one without token ids."""
    record, generation = handling.record, handling.generation
    if candidate is None or generation is None or record.decode_id is None:
        return None
    if not candidate.token_ids or candidate.finish_reason is None:
        return None
    return _sample(
        generation,
        path,
        id=handling.request_id,
        at=wall_clock(),
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


def broken_sample(handling: Handling, path: bytes, wall_clock: Callable[[], float]) -> Sample | None:
    """A sample without tokens, for an attempt whose logprobs were no numbers; None where there was none."""
    plan, generation = handling.broken_by, handling.generation
    if plan is None or generation is None or plan.route not in ("pd", "direct"):
        return None
    nothing = Candidate(
        prompt_token_ids=None, token_ids=[], logprobs=[], tops=[], finish_reason=None, text="", tool_calls=[]
    )
    record = handling.record
    prefill_id = plan.prefill.id if plan.prefill is not None else None
    return _sample(
        generation,
        path,
        id=f"{handling.request_id}-broken",
        at=wall_clock(),
        route=plan.route,
        reason=plan.reason,
        turn=plan.turn,
        prefill_id=prefill_id,
        decode_id=plan.decode.id,
        filled_by=(prefill_id,) if prefill_id is not None else record.filled_by,
        is_scorable=False,
        prompt_tokens=record.prompt_tokens or 0,
        candidate=nothing,
    )


def _sample(generation: Generation, path: bytes, **facts: Any) -> Sample:  # noqa: ANN401
    """With what the request itself says."""
    return Sample(
        kind=generation.kind,
        path=path.partition(b"?")[0].decode("latin-1"),
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
