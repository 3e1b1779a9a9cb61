"""What the proxy writes to stderr: one line per record, and one record per request.

Lines never hold bodies or keys. What comes from a client or an engine (request id, error text) is quoted when it could
be mistaken for another field or another line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TextIO, cast

import msgspec

from ppd_proxy.request.record import Record
from ppd_proxy.telemetry.log_writer import LogWriter

_PACKAGES = ("ppd_proxy", "ppd_shell")
_ERROR_CHARS = 200
_PATH_CHARS = 120
_MODEL_CHARS = 120
_MODEL_BYTES = 6 * _MODEL_CHARS + 2
"""A JSON text has at most six bytes for a character, and two quotes; of longer ones the raw start is shown."""
_QUOTE = ord('"')
_REMEMBERED = 256
"""Names that were made into fields: most requests name the same few, and each field costs as much as the rest."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_is_plain = re.compile(r"[!#-&(-<>-~]+").fullmatch
"""Printable ASCII without blanks, quotes and `=`."""
_text = msgspec.json.Decoder(str)


class OneLineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO ppd_proxy.director: message`; line ends and other controls inside a record, for
    terminals, are escaped."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], super().format(record))


def configure(level: str, stream: TextIO | LogWriter | None = None) -> None:
    """Send all logging to stderr: the proxy's from `level` (`debug`, `info`, `warning`, `error`) on, libraries' from
    warning on. ValueError for another level."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level is {level!r}; it must be debug, info, warning or error")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLineFormatter())
    if isinstance(stream, LogWriter):
        handler.lock = cast("Any", stream.lock)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(number)


@contextlib.contextmanager
def unhurried_stderr() -> Iterator[LogWriter]:
    """Let all that this process says on stderr, also past `logging`, go through a `LogWriter`.

    Ends at most a second late, whether somebody reads or not.
    """
    descriptor = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()
    writer = LogWriter(descriptor, _tell_dropped)
    try:
        with contextlib.redirect_stderr(cast("TextIO", writer)):
            yield writer
    finally:
        writer.end()


def _tell_dropped(lines: int) -> str:
    were = "line was" if lines == 1 else "lines were"
    said = f"{lines} {were} dropped: stderr was not read in time, or refused them"
    record = logging.LogRecord("ppd_proxy.log", logging.WARNING, "", 0, said, None, None)
    return OneLineFormatter().format(record) + "\n"


class RequestLog:
    """Writes the one line of each finished request: info, or warning when the proxy or an engine failed it.

    The same lines as the formatter's, without the machinery of `logging`, which would cost more than everything else
    that the proxy does for a request. Lines are handed to the stream together, at most `delay_s` late; `flush` at the
    end writes what waits.
    """

    def __init__(
        self,
        stream: TextIO | LogWriter,
        level: str,
        later: Callable[[float, Callable[[], None]], object],
        *,
        delay_s: float = 0.05,
    ) -> None:
        self._stream = stream
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._later = later
        self._delay_s = delay_s
        self._lines: list[str] = []
        self._second = -1
        self._prefix = ""

    def add(self, record: Record, unix_s: float) -> None:
        """Log `record`, which ended at `unix_s` (seconds since 1970)."""
        is_bad = is_failure(record)
        if (logging.WARNING if is_bad else logging.INFO) < self._level:
            return
        second = int(unix_s)
        if second != self._second:
            self._second, self._prefix = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        if not self._lines:
            self._later(self._delay_s, self.flush)
        level = "WARNING" if is_bad else "INFO"
        milliseconds = int((unix_s - second) * 1000)
        self._lines.append(f"{self._prefix}.{milliseconds:03d}Z {level} ppd_proxy.request: {request_line(record)}\n")

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        self._stream.write("".join(lines))
        self._stream.flush()


def is_failure(record: Record) -> bool:
    """True for 5xx answers and for answers that broke off; not for a client's mistakes and not when it left."""
    if record.is_client_gone:
        return False
    return record.status >= 500 or (record.error is not None and record.status < 400)


def request_line(record: Record) -> str:
    """`id=... route=... reason=...`: fields that are not known are left out."""
    line = (
        f"id={_word(record.request_id)} route={record.route} reason={record.reason} turn={record.turn} "
        f"status={record.status}"
    )
    if record.path:
        line += _endpoint(record.path.partition(b"?")[0][:_PATH_CHARS])
    if record.model is not None:
        line += _model(record.model)
    received_at = record.received_at
    if record.first_token_at is not None:
        line += f" ttft_ms={(record.first_token_at - received_at) * 1000:.1f}"
    if record.prompt_tokens is not None:
        line += f" prompt_tokens={record.prompt_tokens}"
    if record.cached_tokens is not None:
        line += f" cached_tokens={record.cached_tokens}"
    if record.completion_tokens is not None:
        line += f" completion_tokens={record.completion_tokens}"
    moved = record.transfer
    if moved is not None:
        line += (
            f" kv_bytes={moved.bytes} kv_ms={moved.seconds * 1000:.1f} kv_blocks={moved.blocks} "
            f"kv_skipped={moved.skipped_blocks}"
        )
    if record.prefill_id is not None:
        line += f" prefill={record.prefill_id}"
    if record.decode_id is not None:
        line += f" decode={record.decode_id}"
    if record.retries:
        line += f" retries={record.retries}"
    if record.is_client_gone:
        line += " client_gone=true"
    if record.ended_at is not None:
        line += f" total_ms={(record.ended_at - received_at) * 1000:.1f}"
    if record.error is not None:
        line += f" error={record.error[:_ERROR_CHARS]!r}"
    return line


@lru_cache(_REMEMBERED)
def _endpoint(path: bytes) -> str:
    """For a path without its query, which may hold what is nobody's business."""
    return " endpoint=" + _word(path.decode("utf-8", "backslashreplace"))


@lru_cache(_REMEMBERED)
def _model(raw: bytes) -> str:
    """What the client named as its model, the start of it; nothing where that is no text."""
    if len(raw) > _MODEL_BYTES:
        return " model=" + _word(raw[:_MODEL_CHARS].decode("utf-8", "replace")) if raw[0] == _QUOTE else ""
    try:
        return " model=" + _word(_text.decode(raw)[:_MODEL_CHARS])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _word(text: str) -> str:
    """`text` if it is one plain word, else quoted."""
    return text if (text.isascii() and text.isalnum()) or _is_plain(text) else repr(text)
