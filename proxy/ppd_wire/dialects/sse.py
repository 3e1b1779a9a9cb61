"""Streams of chat completions and completions on their way to the client. The rules are those of `relay.py`.

vLLM answers a failed KV load with status 200, a role chunk, an error event and `[DONE]`; only the first decisive event
tells it from success. What the client may not see (engine-side ids, `kv_transfer_params`, usage, token ids or logprobs
it did not ask for) is taken out; every other byte passes as it came, line ends apart.
No IO, no clock. Source of the shapes: vLLM 0.32 OpenAI server.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ppd_wire.answers.answer import Assembly, EngineAnswer, counted_usage
from ppd_wire.answers.chunks import are_chunks, read_chunks, split_plain
from ppd_wire.answers.engine_errors import openai_error, read_error, shown_error, withheld
from ppd_wire.answers.prompt_counts import PromptCheck, counted
from ppd_wire.answers.removal import HANDOFF_MARK, take_out, take_out_handoff
from ppd_wire.dialects.relay import Relay
from ppd_wire.events import Event, frame
from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.asked import Asked

_FIRST_CHOICE = re.compile(rb'"choices": ?\[\{')
_FINISH = b'finish_reason":'
_NOWHERE = b"\r\r"
_GOING_ON, _GOING_ON_SPACED = _FINISH + b"null", _FINISH + b" null"
_LF = 10
_FIRST_EVENTS = 4
"""A stream begins with a role, and maybe an empty piece or two: read one by one, until one of them tells how the
others begin."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode
MAX_KEPT_BYTES = 8 * 1024 * 1024
"""A longer answer (of the engine, with all that was asked for) is relayed all the same, but its conversation is not
remembered, and it has no candidate."""
READ_BYTES = 256 * 1024
"""So much of an answer is read in one go: 5 ms. A short one is read when it ends, a long one while it comes."""
UNKEPT_BYTES = 2 * 1024
"""The same where only what an answer says is kept, not its bytes: thousands of streams may be open."""


class SseRelay(Relay):
    """Decisive are content, a finish reason, and an error; `[DONE]` ends the answer. A client must not take an answer
    for complete that had an error, so the `[DONE]` behind one is not relayed."""

    __slots__ = (
        "_answer", "_asked", "_assembly", "_check", "_drop_usage", "_ending", "_going_on", "_has_broken", "_has_odd",
        "_is_id_public", "_joint", "_keeps_raw", "_kept", "_max_kept_bytes", "_prefix", "_public_prefix",
        "_read_bytes", "_read_events", "_start", "_step_bytes", "_unfinished", "kept_bytes",
    )  # fmt: skip

    def __init__(
        self, *, hidden_id: bytes, public_id: bytes, drop_usage: bool, asked: Asked,
        max_kept_bytes: int = MAX_KEPT_BYTES, check: PromptCheck | None = None, keeps_raw: bool = True,
    ) -> None:  # fmt: skip
        """`keeps_raw`: somebody will ask for `raw`."""
        super().__init__(hidden_id=hidden_id, public_id=public_id)
        self._max_kept_bytes = max_kept_bytes
        self._drop_usage = drop_usage
        self._asked = asked
        self._unfinished = self._reader.unfinished
        self._kept: list[bytes] = []
        self.kept_bytes = 0
        self._assembly = Assembly()
        self._read_events = 0
        self._keeps_raw = keeps_raw
        self._step_bytes = READ_BYTES if keeps_raw else UNKEPT_BYTES
        self._read_bytes = self._step_bytes
        """With more kept than this, it is time to read on."""
        self._has_odd = False
        """Among what was read is an event that is no chunk of an answer ..."""
        self._has_broken = False
        """... that passed without a closer look, and is not even JSON."""
        self._answer: EngineAnswer | None = None
        self._is_id_public = hidden_id == public_id
        # How every ordinary chunk of this answer begins, up to its first choice: id, time and model stay the same.
        # A one-line event that begins so is neither an error nor [DONE] nor usage alone, and needs no closer look,
        # unless something has to be taken out of it: then the prefix stays empty.
        self._prefix = b""
        self._public_prefix = b""
        self._start = 0
        self._joint = b""
        self._check = check
        """The prompt that the answer must be to, until its count is known: the end does not leave before."""
        self._ending: list[bytes] = []
        """The answer's end, while it waits for that."""
        self._going_on = _GOING_ON
        """What stands in an event of this engine that is not the end, if anything does; once the end has come, what
        stands in none."""

    def feed(self, data: bytes) -> bytes:
        shown: list[bytes] = []
        events_apart = 1 if self._prefix else _FIRST_EVENTS
        while events_apart and (self._unfinished or not self._prefix) and not self.is_over:
            end = data.find(b"\n\n") + 2
            if not 2 <= end < len(data):
                break
            events_apart -= 1
            shown.append(super().feed(data[:end]))
            data = data[end:]
        shown.append(self._feed(data))
        return shown[0] if len(shown) == 1 else b"".join(shown)

    def _feed(self, data: bytes) -> bytes:
        """Ordinary events together, and what comes behind them one by one."""
        prefix = self._prefix
        if not prefix or self._unfinished or not data.startswith(prefix):
            return super().feed(data)
        last = data.rfind(b"\n\n", 0, len(data) - 2) + 2
        if last < 2 or data.startswith(prefix, last):
            end = len(data)
        else:  # the answer's end, or a piece that was cut: it and the one before by themselves
            end = data.rfind(self._joint) + 2
        if end < 2 or not self._is_ordinary(data[:end]):
            return super().feed(data)
        shown = self._pass(data[:end])
        return shown + super().feed(data[end:]) if end < len(data) else shown

    def _is_ordinary(self, data: bytes) -> bool:
        """Whole events that begin as expected, each on one line, with nothing in them to take out or to look at."""
        start, size = self._start, len(data)
        is_one = data.find(b"\n", start) == size - 2
        if data.find(b"\n\n", size - 2) < 0 or not (is_one or data.count(b"\n") == 2 + 2 * data.count(self._joint)):
            return False
        if data.find(HANDOFF_MARK, start) >= 0:
            return False
        if self._check is None or (is_one and data.find(self._going_on, start) >= 0):
            return True
        return not self._may_end(data, start)

    def _pass(self, data: bytes) -> bytes:
        self._keep_plain(data)
        return data if self._is_id_public else data.replace(self._prefix, self._public_prefix)

    def takes_chunk(self, data: bytes) -> bool:
        start = data.find(b"\r\n") + 2
        prefix = self._prefix
        if (
            not prefix
            or not data.startswith(prefix, start)
            or data.find(b"\n", start + self._start) != len(data) - 4
            or not data.endswith(b"\n\n\r\n")
            or data.find(HANDOFF_MARK, start + self._start) >= 0
            or data[: start - 2] != b"%x" % (len(data) - start - 2)
            or not self._is_id_public
            or self._unfinished
            or (self._check is not None and data.find(self._going_on, start) < 0 and self._may_end(data, start))
        ):
            return False
        self._keep_plain(data[start:-2])
        return True

    def _may_end(self, data: bytes, start: int) -> bool:
        """Whether an event may be the answer's end, or come behind it."""
        if self._ending:
            return True
        if data.find(self._going_on, start) < 0:
            return data.find(_FINISH, start) >= 0
        return data.count(self._going_on, start) != data.count(_FINISH, start)

    def _event(self, event: Event) -> bytes | None:
        if event.data.strip() == b"[DONE]":
            self._finish()
            return b"".join([*self._ending, event.raw]) if self.is_done else None
        if event.name == b"error":
            return self._failed(event)
        whole = event
        if self._asked.is_anything:
            shown = take_out(event.data, self._asked)
            if shown is None:
                self._keep(event)
                return None
            if shown is not event.data:
                event = event.with_data(shown)
        try:
            fields = _decode(event.data)
        except BROKEN:
            self._break("the engine sent an event that is no JSON object")
            return None
        if fields.get("error") is not None:
            return self._failed(event)
        self._keep(whole)
        choices = fields.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            self._break("the engine sent an event without a list of choices")
            return None
        if self._check is not None:
            return self._before_the_count(event, fields, choices, self._check)
        return self._content(event, fields, choices)

    def _before_the_count(
        self, event: Event, fields: dict[str, Any], choices: list[dict[str, Any]], check: PromptCheck
    ) -> bytes | None:
        """An event of an answer whose prompt was not compared yet."""
        tokens = counted(fields.get("usage"))
        if tokens is None and not self._ending and not _is_end(choices):
            return self._content(event, fields, choices)
        if tokens is not None:
            self._check = None
            if not check.compare(tokens):
                self._break(str(check))
                return None
        is_decisive = self.is_decisive
        shown = self._content(event, fields, choices)
        if tokens is None:
            self.is_decisive = is_decisive  # what nobody has seen can still be tried again
            self._ending.append(shown or b"")
            self._going_on = _NOWHERE
            return None
        self.is_decisive = is_decisive or self.is_decisive or bool(self._ending)
        ending, self._ending = self._ending, []
        return b"".join([*ending, shown or b""]) or None

    def _content(self, event: Event, fields: dict[str, Any], choices: list[dict[str, Any]]) -> bytes | None:
        self.is_decisive = self.is_decisive or _is_decisive(choices)
        if self._drop_usage and not choices and "usage" in fields:
            return None
        data = take_out_handoff(event.data)
        if data is not event.data:
            event = event.with_data(data)
        elif self.is_decisive and not self._prefix and not self._asked.is_anything:
            self._learn_prefix(event)
        return event.raw.replace(self._hidden_id, self._public_id)

    def _keep(self, event: Event) -> None:
        """What `answer` and `raw` are made of: every event in vLLM's own form."""
        self._keep_plain(event.raw if _is_plain(event) else frame(event.data.replace(b"\n", b" ")))

    def _keep_plain(self, events: bytes) -> None:
        self._kept.append(events)
        self.kept_bytes += len(events)
        if self.kept_bytes > self._read_bytes:
            self._read_on()

    def _read_on(self) -> None:
        """Take what is kept and was not read yet into the answer, or forget it where the answer is too long."""
        if self.kept_bytes > self._max_kept_bytes:
            self._kept.clear()
            return
        unread = b"".join(self._kept[self._read_events :])
        if self._keeps_raw:
            self._read_events = len(self._kept)
        else:
            self._kept.clear()
        self._read_bytes = self.kept_bytes + self._step_bytes
        texts, rest = split_plain(unread)
        chunks = read_chunks(rest)
        if chunks is not None:
            self._assembly.add_texts(texts)
            self._assembly.add(chunks)
            return
        self._has_odd = True
        self._has_broken = self._has_broken or (bool(self._prefix) and not are_chunks(unread))

    def _failed(self, event: Event) -> bytes:
        """An error event; clients know one by its `error` object alone."""
        said = withheld(read_error(event.data), hidden_id=self._hidden_id)
        shown = shown_error(event.data, hidden_id=self._hidden_id, public_id=self._public_id)
        if shown is None or not _has_error_object(shown):
            shown = openai_error(said)
        if shown != event.data:
            event = event.with_data(shown)
        self._keep(event)
        self._prefix = b""
        self._fail(shown, said.status)
        return event.raw

    def _finish(self) -> None:
        self._answer = self.answer()
        if self._has_broken:
            self._break("the engine sent an event that is no JSON object")  # one that passed without a closer look
        elif self._check is not None and not self._check.compare(counted_usage(self._answer)):
            self._break(str(self._check))
        else:
            self.is_decisive = self.is_decisive or bool(self._ending)
            self._end()
        self._prefix = b""

    def _break(self, message: str) -> None:
        super()._break(message)
        self._prefix = b""

    def _learn_prefix(self, event: Event) -> None:
        if _GOING_ON_SPACED in event.raw:
            self._going_on = _GOING_ON_SPACED
        start = _FIRST_CHOICE.search(event.raw)
        if start is None or not _is_plain(event):
            return
        if self._hidden_id in event.raw[start.end() :]:
            return
        self._prefix = event.raw[: start.end()]
        self._start = start.end()
        self._public_prefix = self._prefix.replace(self._hidden_id, self._public_id)
        self._joint = b"\n\n" + self._prefix

    def answer(self) -> EngineAnswer | None:
        """None also when it was too long to keep or is no chat or completion answer."""
        if self.is_done or self.kept_bytes > self._max_kept_bytes:
            return self._answer
        self._read_on()
        return None if self._has_odd else self._assembly.answer()

    @property
    def raw(self) -> bytes | None:
        """The engine's whole events so far, with what is taken out of them; None when they were too long to keep."""
        if not self._keeps_raw:
            raise ValueError("the bytes of this answer were not kept")
        return b"".join(self._kept) if self.kept_bytes <= self._max_kept_bytes else None


def _is_plain(event: Event) -> bool:
    """Its data on one line behind `data: `, and nothing else."""
    return len(event.raw) == len(event.data) + 8 and event.raw.startswith(b"data: ") and b"\n" not in event.data


def _has_error_object(shown: bytes) -> bool:
    try:
        return bool(_decode(shown).get("error"))
    except BROKEN:
        return False


def _is_end(choices: list[dict[str, Any]]) -> bool:
    return any(choice.get("finish_reason") is not None for choice in choices)


def _is_decisive(choices: list[dict[str, Any]]) -> bool:
    """Content of any kind, or the end of a choice."""
    for choice in choices:
        if choice.get("finish_reason") is not None or choice.get("text"):
            return True
        delta = choice.get("delta")
        if isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role"):
            return True
    return False
