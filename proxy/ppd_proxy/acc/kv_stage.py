"""The KV dumps of `diagnose`: whether they are the same, as check-kv judges it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppd_proxy.acc.command import Context, Mistake
from ppd_proxy.acc.flags import between, option


@dataclass(frozen=True, slots=True, kw_only=True)
class KvOutcome:
    """`statement` is for people, `data` for JSON."""

    is_match: bool
    statement: str
    data: dict[str, Any]


def add_kv_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("KV dumps of one prompt (see check-kv)")
    for side in ("baseline", "target"):
        group.add_argument(f"--kv-{side}", metavar="FILE", help=f"the {side}'s: .npz or .safetensors")
    group.add_argument("--kv-max-abs-threshold", type=between(0, float("inf")), metavar="F", help="largest difference")
    group.add_argument("--kv-cosine-threshold", type=between(-1, 1), metavar="F", help="smallest cosine")


def kv_paths(args: argparse.Namespace, directory: Path) -> tuple[Path, Path] | None:
    """Both dumps, or None where none is given. Raises Mistake for one without the other, or one that is not there."""
    given = [(f"--kv-{side}", getattr(args, f"kv_{side}")) for side in ("baseline", "target")]
    if all(path is None for _, path in given):
        return None
    for flag, path in given:
        if path is None:
            raise Mistake(f"{flag} is missing; KV is compared with that of the other side")
        if not (directory / path).is_file():
            raise Mistake(f"{flag} {path}: no such file")
    return directory / given[0][1], directory / given[1][1]


def check_kv(paths: tuple[Path, Path], args: argparse.Namespace, context: Context) -> KvOutcome:
    """Raises Mistake for a file that is no dump."""
    from ppd_proxy.acc.kv_check import Options, check_dumps
    from ppd_proxy.acc.kv_files import KvFileError
    from ppd_proxy.accuracy.kv.tolerance import Limits

    def limit(name: str) -> float | None:
        given = getattr(args, f"kv_{name}")
        told = given if given is not None else option(args, context.settings, name, table="kv")
        return None if told is None else float(told)

    try:
        report = check_dumps(
            *paths, Options(limits=Limits(max_abs=limit("max_abs_threshold"), cosine=limit("cosine_threshold")))
        )
    except KvFileError as error:
        raise Mistake(f"--kv-baseline, --kv-target: {error}") from None
    worst = [{"name": each.name, "status": each.status, "reason": each.reason} for each in report.different]
    statement = f"{len(report.checked)} arrays, {len(worst)} different"
    if report.prompts:
        statement += f"; {report.prompts}"
    elif worst:
        statement += f"; the first is {worst[0]['name']}: {worst[0]['reason']}"
    data = {
        "is_match": report.is_match, "arrays": len(report.checked), "different": worst, "prompts": report.prompts,
        "notes": list(report.notes),
    }  # fmt: skip
    return KvOutcome(is_match=report.is_match, statement=statement, data=data)
