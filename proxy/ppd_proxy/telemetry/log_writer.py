"""Log lines on their way to a file descriptor, without anybody waiting for its reader.

A pipe that nobody reads takes 64 KiB and then lets every writer wait, and an event loop that waits for its log serves
nobody. So pipes and terminals are opened once more, not to block, and lines are written there at once as long as they
are taken: a thread beside the loop would cost it the interpreter's lock twenty times a second. What is not taken, and
what leads to files and sockets, goes into a queue that is bounded in lines and bytes, and a thread writes it. What
finds the queue full or cannot be written is dropped, counted, and told in the log itself once that is written again.

The one thread of the proxy that runs for good. It owns nothing but the queue: no state of the event loop is seen here.
"""

from __future__ import annotations

import io
import os
import select
import stat
import threading  # noqa: TID251 - a blocked write must hold up neither the loop nor, as a pool's worker, its end
from collections import deque
from collections.abc import Callable

MAX_LINES = 4096
MAX_BYTES = 1024 * 1024
RETRY_S = 1.0
"""How long a descriptor that refused a write is left alone: the disk is full, or the reader is gone."""
PAUSE_S = 0.02
"""How long a full pipe that does not block is left alone."""
END_S = 1.0
_MAX_UNFINISHED_CHARS = 65536
_LINE_END = ord("\n")


class LogWriter(io.TextIOBase):
    """A text stream whose `write` never waits. It takes from any thread; whole lines leave in order.

    `tell_dropped` makes the line that says how many were dropped. `end` must be called. Once lines are dropped, all
    are, until those that wait are written and the log tells of it: so the line stands where the gap is. `lock` guards
    all of it, for moments only; who holds another lock while it writes takes this one for it instead.
    """

    def __init__(
        self,
        descriptor: int,
        tell_dropped: Callable[[int], str],
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
        retry_s: float = RETRY_S,
    ) -> None:
        self._descriptor = descriptor
        self._tell_dropped = tell_dropped
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._retry_s = retry_s
        self.lock = threading.RLock()  # reentrant: collecting garbage may log, in the middle of a write
        self._changed = threading.Condition(self.lock)
        self._waiting: deque[bytes] = deque()
        self._waiting_lines = 0
        self._waiting_bytes = 0
        self._unfinished = ""
        self._untold = 0
        self._is_dropping = False
        self._is_torn = False
        """A line stands on the descriptor without its end ..."""
        self._is_end_next = False
        """... which waits first of all."""
        self._is_ending = False
        self._is_given_up = False
        self._is_busy = False
        self._unwaiting = _open_unwaiting(descriptor)
        self.dropped_lines = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        with self._changed:
            whole, end, self._unfinished = (self._unfinished + text).rpartition("\n")
            if len(self._unfinished) > _MAX_UNFINISHED_CHARS:
                whole, end, self._unfinished = whole + end + self._unfinished, "\n", ""
            if end:
                self._add((whole + end).encode("utf-8", "backslashreplace"))
        return len(text)

    def end(self, limit_s: float = END_S) -> None:
        """Write what waits, for at most `limit_s`. After that the descriptor leads nowhere: whatever else the process
        says on its way out, nothing can wait for a reader."""
        with self._changed:
            if self._unfinished:
                self.write("\n")
            self._is_ending = True
            self._changed.notify()
        self._thread.join(limit_s)
        if self._unwaiting is not None:
            os.close(self._unwaiting)
            self._unwaiting = None
        if self._thread.is_alive():
            self._is_given_up = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._descriptor)
            os.close(nowhere)

    def _add(self, data: bytes) -> None:
        if not (self._waiting or self._untold or self._is_busy or self._is_torn):
            data = self._write_at_once(data)
            if not data:
                return
        lines = data.count(b"\n")
        is_too_much = self._waiting_lines + lines > self._max_lines or self._waiting_bytes + len(data) > self._max_bytes
        if self._is_dropping or is_too_much:
            self._drop(lines)
        else:
            self._waiting.append(data)
            self._waiting_lines += lines
            self._waiting_bytes += len(data)
        self._changed.notify()

    def _write_at_once(self, data: bytes) -> bytes:
        """Gives back what would have to wait. A pipe takes all of so few bytes, or none."""
        while data and self._unwaiting is not None:
            end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1 if len(data) > select.PIPE_BUF else len(data)
            try:
                taken = os.write(self._unwaiting, data[:end])
            except OSError:
                break  # the thread will learn what is wrong
            if not taken:
                break  # a line that is longer
            self._is_torn = self._is_end_next = data[taken - 1] != _LINE_END
            data = data[taken:]
        return data

    def _drop(self, lines: int) -> None:
        self._is_dropping = True
        self._untold += lines
        self.dropped_lines += lines

    # -- the thread --

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._untold or self._is_ending)
                if not self._waiting and not self._untold:
                    return
                data, dropped = self._next()
                self._is_busy = True
            unwritten = data[self._put(data) :]
            with self._changed:
                self._is_busy = False
                if not unwritten:
                    self._untold -= dropped
                    self._is_dropping = self._untold > 0
                    continue
                self._lose(0 if dropped else unwritten.count(b"\n"))
                if self._changed.wait_for(lambda: self._is_ending, self._retry_s):
                    return

    def _next(self) -> tuple[bytes, int]:
        """What is to be written now, and of how many dropped lines it tells."""
        if not self._waiting:
            return self._tell_dropped(self._untold).encode(), self._untold
        data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._waiting_lines -= data.count(b"\n")
        return data, 0

    def _lose(self, lines: int) -> None:
        """The descriptor refuses what it is given: what waits would only be late."""
        self._drop(lines + self._waiting_lines)
        self._waiting.clear()
        self._waiting_lines = self._waiting_bytes = 0

    def _put(self, data: bytes) -> int:
        """Write `data`, as long as it takes; how many of its bytes were taken before the descriptor failed."""
        start = b"\n" if self._is_torn and not self._is_end_next else b""
        self._is_end_next = False
        rest = memoryview(start + data)
        while rest and not self._is_given_up:
            try:
                taken = os.write(self._descriptor, rest)
            except BlockingIOError:
                with self._changed:
                    self._changed.wait(PAUSE_S)
            except OSError:
                break
            else:
                self._is_torn = rest[taken - 1] != _LINE_END
                rest = rest[taken:]
        return max(0, len(data) - len(rest))


def _open_unwaiting(descriptor: int) -> int | None:
    """A descriptor of our own that leads to the same reader and never blocks; None where there can be none."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return None
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
