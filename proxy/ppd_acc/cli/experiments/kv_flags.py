"""The flags that name two KV dumps of one prompt."""

from __future__ import annotations

import argparse

from ppd_acc.cli.flags import SIDES, between
from ppd_acc.cli.given import Given
from ppd_acc.experiments.kv_stage import Dumps
from ppd_acc.outcome import Mistake


def add_kv_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("KV dumps of one prompt (see check-kv)")
    for side in SIDES:
        group.add_argument(f"--kv-{side}", metavar="FILE", help=f"the {side}'s: .npz or .safetensors")
    group.add_argument("--kv-max-abs-threshold", type=between(0, float("inf")), metavar="F", help="largest difference")
    group.add_argument("--kv-cosine-threshold", type=between(-1, 1), metavar="F", help="smallest cosine")


def dumps_of(given: Given) -> Dumps | None:
    """None where neither is given. Raises Mistake for one without the other, or one that is not there."""
    files = {f"--kv-{side}": given.flag(f"kv_{side}") for side in SIDES}
    if all(file is None for file in files.values()):
        return None
    for flag, file in files.items():
        if file is None:
            raise Mistake(f"{flag} is missing; KV is compared with that of the other side")
        if not (given.directory / file).is_file():
            raise Mistake(f"{flag} {file}: no such file")
    baseline, target = (given.directory / file for file in files.values())
    max_abs, cosine = (_limit(given, f"{name}_threshold") for name in ("max_abs", "cosine"))
    return Dumps(baseline=baseline, target=target, max_abs=max_abs, cosine=cosine)


def _limit(given: Given, name: str) -> float | None:
    """A threshold of the flags, else of the file."""
    value = given.flag(f"kv_{name}")
    value = value if value is not None else given.option(name, table="kv")
    return None if value is None else float(value)
