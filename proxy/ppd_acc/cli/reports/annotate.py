"""annotate: notes and labels on the samples of a report, in a file beside it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.data.report import read_report
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports.annotations import (
    NOTHING,
    Annotation,
    read_annotations,
    sample_of,
    sidecar,
    write_annotations,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", "--input", required=True, metavar="FILE", help="what batch-compare wrote")
    parser.add_argument("--sample", action="append", metavar="ID", help="which sample, repeatable")
    parser.add_argument("--note", metavar="TEXT", help="replaces the sample's note")
    parser.add_argument("--label", action="append", metavar="WORD", help="added to the sample's labels, repeatable")
    parser.add_argument("--clear", action="store_true", help="remove note and labels first; without --sample, of all")
    parser.add_argument("--list", action="store_true", help="show all annotations")


def run(args: argparse.Namespace, context: Context) -> Result:
    path = context.directory / args.report
    report = read_report(path, "--report")
    annotations = read_annotations(path)
    ids = [sample_of(report, each).sample_id for each in args.sample or ()]
    has_words = args.note is not None or bool(args.label)
    if has_words and not ids:
        raise Mistake("--sample is missing; give the id of the sample that --note or --label is about")
    if any(not label.strip() for label in args.label or ()):
        raise Mistake("--label '' is empty; it must be a word")
    if ids and not has_words and not args.clear and not args.list:
        raise Mistake("--note or --label is missing (or --clear, or --list)")
    if has_words or args.clear:
        annotations = changed(annotations, ids or list(annotations), args)
        write_annotations(path, annotations)
    known = {sample.sample_id for sample in report.samples}
    shown = {name: each for name, each in annotations.items() if not each.is_empty and (not ids or name in ids)}
    strangers = sorted(set(annotations) - known)
    notes = (f"{len(strangers)} annotations are of samples that the report has not: {strangers[:3]}",)
    return Result(
        exit=Exit.PASS,
        data={"report": str(args.report), "file": str(sidecar(args.report)), "annotations": _plain(shown)},
        view=(_table(shown) if shown else Text("no annotations"),),
        notes=notes if strangers else (),
    )


def changed(
    annotations: Mapping[str, Annotation], ids: list[str], args: argparse.Namespace
) -> dict[str, Annotation]:  # fmt: skip
    """The annotations with what the arguments say about `ids`."""
    found = dict(annotations)
    for sample_id in ids:
        before = NOTHING if args.clear else found.get(sample_id, NOTHING)
        found[sample_id] = Annotation(
            sample_id=sample_id,
            note=args.note if args.note is not None else before.note,
            labels=list(dict.fromkeys([*before.labels, *(args.label or ())])),
        )
    return {sample_id: each for sample_id, each in found.items() if not each.is_empty}


def _plain(annotations: Mapping[str, Annotation]) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(dict(annotations))
    return told


def _table(annotations: Mapping[str, Annotation]) -> Table:
    table = Table("sample", "labels", "note")
    for sample_id, each in sorted(annotations.items()):
        table.add_row(Text(sample_id), Text(", ".join(each.labels)), Text(each.note or ""))
    return table


COMMANDS = (Command(name="annotate", add_arguments=add_arguments, run=run),)
