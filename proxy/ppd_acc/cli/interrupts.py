"""SIGTERM, which CI systems and Kubernetes send, ends a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

from ppd_acc.outcome import Result

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@contextlib.contextmanager
def ends_as_interrupted() -> Iterator[None]:
    """SIGTERM is what Ctrl-C is: the command says what it has, and how to go on. Nothing changes where somebody else
    handles or ignores it."""
    if not _replace(signal.SIG_DFL, _interrupt):
        yield
        return
    try:
        yield
    finally:
        _replace(_interrupt, signal.SIG_DFL)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _replace(before: Handler, after: Handler) -> bool:
    """Whether SIGTERM had that handler, and this is the thread that may give it another."""
    if signal.getsignal(signal.SIGTERM) is not before:
        return False
    try:
        signal.signal(signal.SIGTERM, after)
    except ValueError:  # not the main thread
        return False
    return True


class Terminated(Exception):
    """SIGTERM came while a loop was running."""


async def until_terminated(work: Coroutine[Any, Any, Result]) -> Result:
    """In a loop SIGTERM cancels the work, as its Runner has it for Ctrl-C, which may be ignored. Raises Terminated."""
    import asyncio  # here, because most commands ask no engine

    loop, task, is_ended = asyncio.get_running_loop(), asyncio.current_task(), False
    assert task is not None

    def end(_: int, __: FrameType | None) -> None:
        nonlocal is_ended
        is_ended = True
        loop.call_soon_threadsafe(task.cancel)

    if not _replace(_interrupt, end):
        return await work
    try:
        return await work
    except asyncio.CancelledError:
        if is_ended:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, _interrupt)
