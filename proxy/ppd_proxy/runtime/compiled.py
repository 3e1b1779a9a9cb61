"""Which modules run compiled (`scripts/compile.py`), and whether they are those of the sources beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

MANIFEST = Path("ppd_proxy", "compiled.json")
"""Below `root()`: `modules` with the digest of each one's source, and the `files` that were put beside them."""


class StaleModules(Exception):
    """Compiled modules whose sources have changed since."""


def root() -> Path:
    """The folder that has the packages."""
    return Path(__file__).resolve().parents[2]


def compiled_modules(root: Path) -> tuple[str, ...]:
    """The names of those that this interpreter takes; raises StaleModules naming those that are not of their source."""
    if not (root / MANIFEST).exists():
        return ()
    digests: dict[str, str] = json.loads((root / MANIFEST).read_bytes())["modules"]
    names = tuple(name for name in digests if _has_library(root, name))
    stale = [name for name in names if _digest(root, name) != digests[name]]
    if stale:
        raise StaleModules(
            f"{', '.join(stale)} ran compiled from another source; run scripts/compile.py again, or with --clean"
        )
    return names


def write_manifest(root: Path, names: Iterable[str], files: list[str]) -> None:
    modules = {name: _digest(root, name) for name in names}
    (root / MANIFEST).write_text(json.dumps({"modules": modules, "files": files}, indent=1))


def clean(root: Path) -> None:
    """Take away what was compiled."""
    if not (root / MANIFEST).exists():
        return
    for name in json.loads((root / MANIFEST).read_bytes())["files"]:
        (root / name).unlink(missing_ok=True)
    (root / MANIFEST).unlink()


def _has_library(root: Path, name: str) -> bool:
    stem = root.joinpath(*name.split("."))
    return any(stem.with_name(stem.name + suffix).exists() for suffix in EXTENSION_SUFFIXES)


def _digest(root: Path, name: str) -> str:
    source = root.joinpath(*name.split(".")).with_suffix(".py")
    return hashlib.blake2b(source.read_bytes(), digest_size=16).hexdigest() if source.exists() else ""
