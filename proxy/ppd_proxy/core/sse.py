"""One streamed answer on its way to the client.

Rules kept here:
1. Nothing goes out before the first *decisive* event: content, a finish reason, or an error. vLLM answers a failed KV
   load with status 200, a role chunk, an error event and `[DONE]`; only the decisive event tells it from success.
2. A later error event is relayed, the `[DONE]` behind it is not: a client must not take the answer for complete.
3. Events leave whole. What the client may not see (engine-side ids, `kv_transfer_params`, usage, token ids or logprobs
   it did not ask for) is taken out; every other byte passes as it came.
No IO, no clock. Source of the shapes: vLLM 0.32 OpenAI server.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ppd_proxy.core.answer import EngineAnswer, client_body, read_opaque_usage, read_stream
from ppd_proxy.core.asked import NOTHING, Asked
from ppd_proxy.core.chat import KV_PARAMS
from ppd_proxy.core.removal import take_out

_FIRST_CHOICE = re.compile(rb'"choices": ?\[\{')
_KV_PARAMS = KV_PARAMS.encode()
_decode = msgspec.json.Decoder(dict[str, Any]).decode
MAX_KEPT_BYTES = 8 * 1024 * 1024
"""A longer answer (of the engine, with all that was asked for) is relayed all the same, but its conversation is not
remembered, and it has no candidate."""


class SseRelay:
    """Feeds on the bytes of a decode leg, yields the bytes for the client.

    `is_decisive` turns true once when rule 1 is met; before that `feed` returns nothing. `error` is the data of the
    first error event: before `is_decisive` nothing was sent and the caller answers with a status instead.
    """

    __slots__ = (
        "_asked", "_drop_usage", "_held", "_hidden_id", "_is_id_public", "_kept", "_kept_bytes", "_max_kept_bytes",
        "_prefix", "_public_id", "_public_prefix", "_tail",
        "error", "is_decisive", "is_done",
    )  # fmt: skip

    def __init__(
        self, *, hidden_id: bytes, public_id: bytes, drop_usage: bool, asked: Asked,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:  # fmt: skip
        self._hidden_id = hidden_id
        self._max_kept_bytes = max_kept_bytes
        self._public_id = public_id
        self._drop_usage = drop_usage
        self._asked = asked
        self._tail = b""
        self._held: list[bytes] = []
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._is_id_public = hidden_id == public_id
        # How every ordinary chunk of this answer begins, up to its first choice: id, time and model stay the same.
        # An event that begins so is neither an error nor [DONE] nor usage alone, and needs no closer look, unless
        # something has to be taken out of it: then the prefix stays empty.
        self._prefix = b""
        self._public_prefix = b""
        self.is_decisive = False
        self.is_done = False
        self.error: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """The bytes the client gets for `data`; an unfinished event waits for its end."""
        prefix = self._prefix
        if (
            prefix
            and data.startswith(prefix)
            and not self._tail
            and (data.find(b"\n\n", len(prefix)) == len(data) - 2 or _are_all_ordinary(data, prefix))
            and data.find(_KV_PARAMS, len(prefix)) < 0
        ):
            if self._kept_bytes <= self._max_kept_bytes:
                self._kept.append(data)
                self._kept_bytes += len(data)
            return data if self._is_id_public else data.replace(prefix, self._public_prefix)
        data = self._whole_events(data)
        if not data:
            return b""
        if self._kept_bytes <= self._max_kept_bytes:
            self._kept.append(data)
            self._kept_bytes += len(data)
        return self._feed_events(data)

    def takes_chunk(self, data: bytes) -> bool:
        """Whether `data` is one HTTP chunk of the engine, framing included, that holds one ordinary event and may go
        to the client exactly as it is; then it counts as fed."""
        start = data.find(b"\r\n") + 2
        prefix = self._prefix
        if (
            not prefix
            or not data.startswith(prefix, start)
            or data.find(b"\n\n", start + len(prefix)) != len(data) - 4
            or not data.endswith(b"\r\n")
            or data.find(_KV_PARAMS, start + len(prefix)) >= 0
            or data[: start - 2] != b"%x" % (len(data) - start - 2)
            or not self._is_id_public
            or self._tail
        ):
            return False
        if self._kept_bytes <= self._max_kept_bytes:
            self._kept.append(data[start:-2])
            self._kept_bytes += len(data)
        return True

    def _whole_events(self, data: bytes) -> bytes:
        """What is complete of the bytes so far; the rest waits for its end."""
        data = (self._tail + data).replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            self._tail = data
            return b""
        self._tail = data[end:]
        return data[:end]

    def _feed_events(self, data: bytes) -> bytes:
        out = self._held
        for event in data[:-2].split(b"\n\n"):
            shown = self._event(event)
            if shown is not None:
                out.append(shown + b"\n\n")
        if not self.is_decisive:
            return b""
        self._held = []
        return b"".join(out)

    def _event(self, event: bytes) -> bytes | None:
        """The event as the client may see it; None when it may not."""
        if not event.startswith(b"data:"):
            return event  # a comment: vLLM's keep-alive, if that is switched on, or a middlebox's
        payload = event[5:].strip()
        if payload == b"[DONE]":
            self.is_done = True
            return None if self.error is not None else event
        if self._asked.is_anything:
            shown = take_out(payload, self._asked)
            if shown is None:
                return None
            event, payload = event.replace(payload, shown, 1), shown
        try:
            fields = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        if fields.get("error") is not None:
            self.error = self.error or payload
        elif not self.is_decisive and self.error is None:
            self.is_decisive = _is_decisive(fields)
        if self._drop_usage and fields.get("choices") == [] and "usage" in fields:
            return None
        if KV_PARAMS in fields:
            return b"data: " + client_body(
                payload, hidden_id=self._hidden_id, public_id=self._public_id, asked=NOTHING
            )
        if self.is_decisive and not self._prefix and not self._asked.is_anything:
            self._learn_prefix(event)
        return event.replace(self._hidden_id, self._public_id)

    def _learn_prefix(self, event: bytes) -> None:
        start = _FIRST_CHOICE.search(event)
        if start is None or self._hidden_id in event[start.end() :]:
            return
        self._prefix = event[: start.end()]
        self._public_prefix = self._prefix.replace(self._hidden_id, self._public_id)

    def answer(self) -> EngineAnswer | None:
        """What the whole stream said; None when it was too long to keep or is no chat or completion answer."""
        if self._kept_bytes > self._max_kept_bytes:
            return None
        return read_stream(b"".join(self._kept), self._prefix)

    @property
    def raw(self) -> bytes | None:
        """The engine's whole events so far, with what is taken out of them; None when they were too long to keep."""
        return b"".join(self._kept) if self._kept_bytes <= self._max_kept_bytes else None


class OpaqueRelay:
    """A stream of an endpoint whose events the proxy does not read (`/v1/responses`, `/v1/messages`), usage apart."""

    __slots__ = ("_hidden_id", "_public_id", "_usage", "error", "is_decisive", "is_done")

    def __init__(self, *, hidden_id: bytes, public_id: bytes) -> None:
        self._hidden_id = hidden_id
        self._public_id = public_id
        self._usage = b""
        self.is_decisive = False
        self.is_done = True
        self.error: bytes | None = None

    def takes_chunk(self, data: bytes) -> bool:
        return False

    def feed(self, data: bytes) -> bytes:
        self.is_decisive = True
        if b'"input_tokens"' in data:
            self._usage = data
        return data.replace(self._hidden_id, self._public_id) if self._hidden_id != self._public_id else data

    def answer(self) -> EngineAnswer | None:
        return read_opaque_usage(self._usage)


def _are_all_ordinary(data: bytes, prefix: bytes) -> bool:
    """Whole events only, and every one of them begins with `prefix`, which cannot stand inside of one."""
    return data.endswith(b"\n\n") and data.count(prefix) == data.count(b"\n\n")


def _is_decisive(fields: dict[str, Any]) -> bool:
    """The event carries content of any kind, or the end of a choice."""
    choices = fields.get("choices")
    if not isinstance(choices, list):
        return bool(fields)
    for choice in choices:
        if choice.get("finish_reason") is not None or choice.get("text"):
            return True
        delta = choice.get("delta") or {}
        if any(value for name, value in delta.items() if name != "role"):
            return True
    return False


def error_event(payload: bytes) -> bytes:
    """The last event of an answer that broke off; no `[DONE]` follows it."""
    return b"data: " + payload + b"\n\n"
