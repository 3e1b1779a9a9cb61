"""report: a batch report as one HTML page that needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppd_acc.cli.flags import positive
from ppd_acc.cli.options import flag, value
from ppd_acc.cli.reports.source import FileSource, Source, report_from, source_flags
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.data.report import Report
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Result
from ppd_acc.page.document import MOST_SAMPLES, Extras, page_of
from ppd_acc.page.kv_matrix import read_heat
from ppd_acc.reports.annotations import sidecar
from ppd_acc.surroundings import Surroundings

_OUTPUT = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: Source = source_flags("--input", "--report", flag="--input")
    output: str = value(
        "FILE", f"the page (default {_OUTPUT})", read=lambda given: given.option("output", _OUTPUT, table="report")
    )
    kv: str | None = value("FILE", "what check-kv --json wrote: adds a map of layers by position")
    title: str = flag(metavar="TEXT", default="ppd-acc report", help="stands above the verdict")
    max_samples: int = value("N", "samples listed with their texts, those that differ first", positive, MOST_SAMPLES)


async def run(options: Options, surroundings: Surroundings) -> Result:
    report = await report_from(options.source)
    notes = notes_of(report)
    heat = read_heat(surroundings.directory / options.kv, "--kv") if options.kv is not None else None
    annotations = options.source.annotations()
    extras = Extras(
        title=options.title,
        annotations=annotations,
        heat=heat,
        files=_files(options, has_annotations=bool(annotations)),
        notes=notes,
        most_samples=options.max_samples,
    )
    page, output = page_of(report, extras), Path(options.output)
    body = page.html.encode()
    write_whole(surroundings.directory / output, (body,), "--output")
    return Result(
        exit=Exit.PASS,
        data={
            "output": str(output),
            "bytes": len(body),
            "samples": len(report.samples),
            "listed": page.shown,
            "headline": page.headline.told,
            "verdict": page.headline.outcome,
            "reason": page.headline.reason,
        },
        view=(f"{page.headline.told}: {_size(report, page.shown)}; {output}, {len(body) / 1024:,.0f} KiB",),
        notes=notes,
    )


def _size(report: Report, shown: int) -> str:
    every = len(report.samples)
    return f"{every:,} samples" if shown == every else f"{every:,} samples, {shown:,} of them listed"


def _files(options: Options, *, has_annotations: bool) -> list[tuple[str, str]]:
    source = options.source
    files = [("report" if isinstance(source, FileSource) else "proxy", source.name)]
    if options.kv is not None:
        files.append(("KV check", options.kv))
    if has_annotations:
        files.append(("annotations", str(sidecar(source.name))))
    return files
