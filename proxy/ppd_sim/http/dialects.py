"""`/v1/messages` and `/v1/responses`: a chat answer's text in the other dialects, whole or as a stream that is sent at
once. Source of the shapes: vLLM 0.32."""

from __future__ import annotations

from typing import Any

import msgspec

from ppd_wire.events import frame

Json = dict[str, Any]


def message(model: str, text: str, usage: Json) -> Json:
    return {
        "id": "msg_sim", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def response(model: str, text: str, usage: Json, created_at: int) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    said = {"id": "msg_sim", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_sim", "object": "response", "created_at": created_at, "status": "completed", "model": model,
        "output": [said], "usage": {**usage, "total_tokens": sum(usage.values())},
    }  # fmt: skip


def message_events(whole: Json) -> bytes:
    (block,) = whole["content"]
    empty = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 0}}
    return _stream(
        {"type": "message_start", "message": empty},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": block["text"]}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta", "usage": whole["usage"],
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]},
        },
        {"type": "message_stop"},
    )  # fmt: skip


def response_events(whole: Json) -> bytes:
    text = whole["output"][0]["content"][0]["text"]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_sim", "output_index": 0, "content_index": 0}
    events: tuple[Json, ...] = (
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_text.delta", "delta": text, "logprobs": [], **place},
        {"type": "response.output_text.done", "text": text, "logprobs": [], **place},
        {"type": "response.completed", "response": whole},
    )
    return _stream(*({**event, "sequence_number": number} for number, event in enumerate(events)))


def _stream(*events: Json) -> bytes:
    return b"".join(frame(msgspec.json.encode(event), event["type"].encode()) for event in events)
