"""Writing a file all at once: readers see the old content or the new one, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ppd_acc.outcome import Trouble


def write_whole(path: Path, parts: Iterable[bytes], flag: str) -> None:
    """Writes beside `path`, then renames. Special files (a pipe, /dev/stdout) are written as they are. Raises
    Trouble, which names the flag."""
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as special:
                special.writelines(parts)
            return
        real = Path(os.path.realpath(path))
        beside = real.with_name(f".{real.name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, real)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise Trouble(f"{flag} {path}: {error.strerror or error}") from None
