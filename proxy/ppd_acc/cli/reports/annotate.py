"""annotate: notes and labels on the samples of a report, in a file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.options import flag, several, switch, value
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports.annotations import NOTHING, Annotation, read_annotations, sample_of, sidecar, write_annotations
from ppd_acc.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    report: str = flag("--report", "--input", required=True, metavar="FILE", help="what batch-compare wrote")
    sample: Sequence[str] = several("ID", "which sample, repeatable")
    note: str | None = value("TEXT", "replaces the sample's note")
    label: Sequence[str] = several("WORD", "added to the sample's labels, repeatable")
    clear: bool = switch("remove note and labels first; without --sample, of all")
    list: bool = switch("show all annotations")


def run(options: Options, surroundings: Surroundings) -> Result:
    path = surroundings.directory / options.report
    report = read_report(path, "--report")
    annotations = read_annotations(path)
    ids = [sample_of(report, each).sample_id for each in options.sample]
    has_words = options.note is not None or bool(options.label)
    if has_words and not ids:
        raise Mistake("--sample is missing; give the id of the sample that --note or --label is about")
    if any(not label.strip() for label in options.label):
        raise Mistake("--label '' is empty; it must be a word")
    if ids and not has_words and not options.clear and not options.list:
        raise Mistake("--note or --label is missing (or --clear, or --list)")
    if has_words or options.clear:
        annotations = changed(annotations, ids or list(annotations), options)
        write_annotations(path, annotations)
    known = {sample.sample_id for sample in report.samples}
    shown = {name: each for name, each in annotations.items() if not each.is_empty and (not ids or name in ids)}
    strangers = sorted(set(annotations) - known)
    notes = (f"{len(strangers)} annotations are of samples that the report has not: {strangers[:3]}",)
    plain = msgspec.to_builtins(shown)
    data = {"report": options.report, "file": str(sidecar(options.report)), "annotations": plain}
    view = (_table(shown) if shown else "no annotations",)
    return Result(exit=Exit.PASS, data=data, view=view, notes=notes if strangers else ())


def changed(
    annotations: Mapping[str, Annotation], ids: list[str], options: Options
) -> dict[str, Annotation]:  # fmt: skip
    """The annotations with what the arguments say about `ids`."""
    kept = dict(annotations)
    for sample_id in ids:
        before = NOTHING if options.clear else kept.get(sample_id, NOTHING)
        kept[sample_id] = Annotation(
            sample_id=sample_id,
            note=options.note if options.note is not None else before.note,
            labels=list(dict.fromkeys([*before.labels, *options.label])),
        )
    return {sample_id: each for sample_id, each in kept.items() if not each.is_empty}


def _table(annotations: Mapping[str, Annotation]) -> Table:
    table = Table("sample", "labels", "note")
    for sample_id, each in sorted(annotations.items()):
        table.add_row(Text(sample_id), Text(", ".join(each.labels)), Text(each.note or ""))
    return table
