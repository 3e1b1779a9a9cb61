"""report: a batch report as one HTML page that needs no network."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import option, positive
from ppd_acc.cli.reports.source import add_report_flags, report_from
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.data.report import Report
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Result
from ppd_acc.page.document import MOST_SAMPLES, Extras, page_of
from ppd_acc.page.kv_matrix import read_heat
from ppd_acc.reports.annotations import Annotation, read_annotations, sidecar

_OUTPUT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_report_flags(parser, "--input", "--report", dest="report")
    parser.add_argument("--output", metavar="FILE", help=f"the page (default {_OUTPUT})")
    parser.add_argument("--kv", metavar="FILE", help="what check-kv --json wrote: adds a map of layers by position")
    parser.add_argument("--title", metavar="TEXT", default="ppd-acc report", help="stands above the verdict")
    parser.add_argument(
        "--max-samples", type=positive, metavar="N", default=MOST_SAMPLES,
        help=f"samples listed with their texts, those that differ first (default {MOST_SAMPLES})",
    )  # fmt: skip


async def run(args: argparse.Namespace, context: Context) -> Result:
    report = await report_from(args, context, flag="--input")
    notes = notes_of(report)
    heat = read_heat(context.directory / args.kv, "--kv") if args.kv is not None else None
    annotations: Mapping[str, Annotation] = {}
    if args.report is not None:
        annotations = read_annotations(context.directory / args.report)
    page = page_of(
        report,
        Extras(
            title=args.title,
            annotations=annotations,
            heat=heat,
            files=_files(args, annotations),
            notes=notes,
            most_samples=args.max_samples,
        ),
    )
    output = Path(option(args, context.settings, "output", _OUTPUT, table="report"))
    body = page.html.encode()
    write_whole(context.directory / output, (body,), "--output")
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
        view=(Text(f"{page.headline.told}: {_size(report, page.shown)}; {output}, {len(body) / 1024:,.0f} KiB"),),
        notes=notes,
    )


def _size(report: Report, shown: int) -> str:
    every = len(report.samples)
    return f"{every:,} samples" if shown == every else f"{every:,} samples, {shown:,} of them listed"


def _files(args: argparse.Namespace, annotations: Mapping[str, Annotation]) -> list[tuple[str, str]]:
    told = [("report", args.report), ("proxy", args.from_proxy), ("KV check", args.kv)]
    if annotations:
        told.append(("annotations", str(sidecar(args.report))))
    return [(name, str(value)) for name, value in told if value is not None]


COMMANDS = (Command(name="report", add_arguments=add_arguments, run=run),)
