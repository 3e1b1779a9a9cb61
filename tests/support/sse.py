"""Streams of chats and completions as vLLM sends them, and the relay that reads them."""

from __future__ import annotations

import json

from ppd_wire.dialects.sse import SseRelay
from ppd_wire.requests.asked import NOTHING

TAG = "___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_" + "ab" * 16
PUBLIC = "cd" * 16
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "Internal server error", "type": "InternalServerError", "code": 500}}\n\n'
PING = b": keep-alive\n\n"


def event(choices, **fields):
    return b"data: " + json.dumps({"id": f"chatcmpl-{TAG}", "choices": choices, **fields}).encode() + b"\n\n"


def delta(finish_reason=None, /, **fields):
    return event([{"index": 0, "delta": fields, "logprobs": None, "finish_reason": finish_reason}])


def text(piece, finish_reason=None, **fields):
    return event([{"index": 0, "text": piece, "finish_reason": finish_reason, **fields}])


ROLE = delta(role="assistant", content="")
USAGE = event([], usage={"prompt_tokens": 30, "completion_tokens": 2})
CHAT = [ROLE, delta(content="hi"), delta(content=" there"), delta("stop", content=""), USAGE, DONE]


def relay(*, hidden=TAG, public=PUBLIC, drop_usage=False, asked=NOTHING, **more):
    return SseRelay(hidden_id=hidden.encode(), public_id=public.encode(), drop_usage=drop_usage, asked=asked, **more)


def feed(stream, *events):
    return b"".join(stream.feed(each) for each in events)


def public(data):
    return data.replace(TAG.encode(), PUBLIC.encode())


def framed(data):
    return b"%x\r\n%b\r\n" % (len(data), data)
