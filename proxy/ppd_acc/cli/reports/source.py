"""Where a report comes from: a file, or a running proxy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ppd_acc.ask.access import Access
from ppd_acc.cli.flags import add_access_flags, positive
from ppd_acc.cli.given import Given, url_of
from ppd_acc.cli.options import flags
from ppd_acc.data.from_proxy import LIMIT_SAMPLES, read_proxy
from ppd_acc.data.report import Report
from ppd_acc.data.report_files import read_report
from ppd_acc.data.totals import totals_of
from ppd_acc.outcome import Mistake
from ppd_acc.reports.annotations import Annotation, read_annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """`name` is what the line says, `flag` how it is called."""

    name: str
    path: Path
    flag: str

    def annotations(self) -> dict[str, Annotation]:
        return read_annotations(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySource:
    """The same of a proxy, and how it is asked for its newest `limit` samples."""

    name: str
    url: str
    access: Access
    limit: int
    flag: str = "--from-proxy"

    def annotations(self) -> dict[str, Annotation]:
        return {}


Source = FileSource | ProxySource


def source_flags(*names: str, flag: str = "--report", limit_flag: str = "--limit") -> Any:
    return flags(partial(add_source_flags, names=names, limit_flag=limit_flag), partial(source_of, flag=flag))


def add_source_flags(
    parser: argparse.ArgumentParser, *, names: tuple[str, ...] = (), limit_flag: str = "--limit"
) -> None:  # fmt: skip
    """A file (`names`, by default `--report` and `--input`), or `--from-proxy`."""
    group = parser.add_argument_group("report")
    names = names or ("--report", "--input")
    group.add_argument(*names, dest="report", metavar="FILE", help="what batch-compare wrote")
    group.add_argument("--from-proxy", metavar="URL", help="instead: the accuracy samples of a running ppd-proxy")
    group.add_argument(
        limit_flag, dest="proxy_limit", type=positive, default=LIMIT_SAMPLES, metavar="N",
        help=f"newest samples that --from-proxy reads (default {LIMIT_SAMPLES})",
    )  # fmt: skip
    add_access_flags(parser)


def source_of(given: Given, *, flag: str = "--report", file: str | None = None) -> Source:
    """`file` is one that stands on the line without a flag. Raises Mistake."""
    file = given.flag("report") if file is None else file
    proxy = given.flag("from_proxy")
    if file is not None and proxy is not None:
        raise Mistake(f"{flag} and --from-proxy are both given; give one of them")
    if file is not None:
        return FileSource(name=file, path=given.directory / file, flag=flag)
    if proxy is None:
        raise Mistake(f"{flag} is missing; give a report of batch-compare, or --from-proxy with a proxy's URL")
    access = given.access()
    return ProxySource(
        name=proxy, url=url_of("--from-proxy", proxy), access=access, limit=given.flag("proxy_limit")
    )  # fmt: skip


async def report_from(source: Source, *, has_both_answers: bool = False) -> Report:
    """`has_both_answers`: only samples with an answer of both engines, which scored samples of a proxy have not. Raises
    Mistake and Trouble."""
    if isinstance(source, FileSource):
        return read_report(source.path, source.flag)
    report = await read_proxy(source.url, source.access, source.limit)
    if not has_both_answers:
        return report
    kept = [sample for sample in report.samples if sample.metadata.get("method") == "replay"]
    if not kept:
        raise Mistake(
            f"{source.flag} {source.name}: none of its {len(report.samples)} samples has an answer of the baseline;"
            " start the proxy with --shadow-method replay"
        )
    return msgspec.structs.replace(report, samples=kept, totals=totals_of(each.status for each in kept))
