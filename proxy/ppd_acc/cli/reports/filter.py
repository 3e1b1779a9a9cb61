"""filter: the samples of a report that meet all conditions, as a report again."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.flags import between, not_negative
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags
from ppd_acc.cli.reports.source import Source, report_from, source_flags
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.data.report import STATUSES, Sample
from ppd_acc.data.report_files import write_report
from ppd_acc.data.totals import totals_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports import conditions
from ppd_acc.reports.annotations import Annotation, write_annotations
from ppd_acc.reports.conditions import Condition, Figure
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted

_CLASSIFICATIONS = ("match", "likely_bug", "likely_uncertainty", "unknown")
"""What the published tool calls samples; kept in the metadata of its reports."""
_SHOWN = 20
_FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "position": attrgetter("first_divergence"), "shift": conditions.shift, "delta": attrgetter("max_delta"),
        "prompt tokens": conditions.prompt_length, "answer tokens": conditions.answer_length,
    }
)  # fmt: skip
_number = between(-math.inf, math.inf)


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conditions, all of which must hold")
    group.add_argument(
        "--status", action="append", metavar="STATUS", help=f"one of {', '.join(STATUSES)}; repeatable, or with commas"
    )
    group.add_argument(
        "--classification", choices=(*STATUSES, *_CLASSIFICATIONS),
        help="a status, or what the published tool called a sample",
    )  # fmt: skip
    which = group.add_mutually_exclusive_group()
    which.add_argument("--divergent-only", action="store_true", help="tie, real and unclassified")
    which.add_argument("--matched-only", action="store_true", help="equal")
    for side, text in (("min", "at least"), ("max", "at most")):
        group.add_argument(f"--{side}-position", type=not_negative, metavar="N", help=f"first difference {text} here")
        group.add_argument(
            f"--{side}-shift", f"--{side}-logprob-gap", type=_number, metavar="NATS",
            help=f"{text}: moved difference of the two tokens' logprobs",
        )  # fmt: skip
        group.add_argument(
            f"--{side}-delta", type=_number, metavar="NATS", help=f"{text}: largest logprob difference before it"
        )
        group.add_argument(
            f"--{side}-prompt-tokens", f"--{side}-context-length", type=not_negative, metavar="N",
            help=f"{text}; words in reports without tokens",
        )  # fmt: skip
        group.add_argument(f"--{side}-answer-tokens", type=not_negative, metavar="N", help=f"{text}; the target's")
    group.add_argument("--id", metavar="REGEX", help="found anywhere in the sample's id")
    group.add_argument("--search", metavar="TEXT", help="in the prompt or an answer, whatever the case")
    group.add_argument("--tag", action="append", metavar="TAG", help="a tag, or KEY=VALUE of the metadata; repeatable")
    group.add_argument("--label", "--annotation-label", action="append", metavar="WORD", help="repeatable")
    noted = group.add_mutually_exclusive_group()
    noted.add_argument("--annotated", action="store_true", help="with a note or a label")
    noted.add_argument("--unannotated", action="store_true", help="without")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`labels`, and whether there is any annotation, are of a file beside the report; the others of the samples."""

    of_samples: Sequence[Condition]
    labels: Sequence[str]
    is_annotated: bool | None

    def conditions(self, annotations: Mapping[str, Annotation]) -> list[Condition]:
        every = [*self.of_samples, *(conditions.has_label(label, annotations) for label in self.labels)]
        if self.is_annotated is not None:
            every.append(conditions.is_annotated(self.is_annotated, annotations))
        return every


def _wanted(given: Given) -> Wanted:
    return Wanted(
        of_samples=_conditions(given),
        labels=given.flag("label") or (),
        is_annotated=given.flag("annotated") if given.flag("annotated") or given.flag("unannotated") else None,
    )


def _conditions(given: Given) -> list[Condition]:
    """Raises Mistake for a status that there is not, or a pattern that is none."""
    wanted: list[Condition] = []
    statuses = [each.strip() for text in given.flag("status") or () for each in text.split(",")]
    for each in statuses:
        if each not in STATUSES:
            raise Mistake(f"--status {each!r}: it must be one of {', '.join(STATUSES)}")
    if statuses:
        wanted.append(conditions.has_status(statuses))
    called, pattern, text = (given.flag(name) for name in ("classification", "id", "search"))
    if called in _CLASSIFICATIONS:
        wanted.append(conditions.has_tag(f"classification={called}"))
    elif called is not None:
        wanted.append(conditions.has_status([called]))
    if given.flag("divergent_only"):
        wanted.append(conditions.has_status(("tie", "real", "unclassified")))
    if given.flag("matched_only"):
        wanted.append(conditions.has_status(("equal",)))
    for name, figure in _FIGURES.items():
        low, high = (given.flag(f"{side}_{name.replace(' ', '_')}") for side in ("min", "max"))
        is_of_difference = name in ("position", "shift")
        wanted += conditions.within(name, figure, low, high, is_of_difference=is_of_difference)
    if pattern is not None:
        try:
            wanted.append(conditions.has_id(re.compile(pattern)))
        except re.error as error:
            raise Mistake(f"--id {pattern!r}: no regular expression: {error}") from None
    if text is not None:
        wanted.append(conditions.has_text(text))
    return wanted + [conditions.has_tag(tag) for tag in given.flag("tag") or ()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: Source = source_flags()
    output: str | None = flag(
        "-o", "--output", metavar="FILE", help="the report of what is kept (default: only listed)"
    )
    wanted: Wanted = flags(_add_conditions, _wanted)


async def run(options: Options, surroundings: Surroundings) -> Result:
    report = await report_from(options.source)
    annotations = options.source.annotations()
    wanted = options.wanted.conditions(annotations)
    kept = conditions.keep(report.samples, wanted)
    names = [each.name for each in wanted]
    notes = [*notes_of(report)]
    notes += [
        f"{counted(count, 'sample')} left out that do not tell: {name}" for name, count in kept.unknown.items()
    ]  # fmt: skip
    if not kept.samples:
        notes.append("no sample meets the conditions")
    totals = totals_of((each.status for each in kept.samples), report.totals.confidence if report.totals else 0.95)
    view = [f"{len(kept.samples)} of {len(report.samples)} samples" + (f": {'; '.join(names)}" if names else "")]
    if options.output is not None:
        path = surroundings.directory / options.output
        if path.is_dir() or not path.parent.is_dir():
            raise Mistake(f"--output {options.output}: it must be a file in a directory that exists")
        settings = {**report.settings, "filter": names, "filtered_from_samples": len(report.samples)}
        # The gate was of all samples; none of a part of them, chosen by outcome, means anything.
        made = msgspec.structs.replace(report, samples=kept.samples, totals=totals, settings=settings, gate={})
        write_report(made, path, "--output")
        ids = {sample.sample_id for sample in kept.samples}
        if carried := {name: each for name, each in annotations.items() if name in ids}:
            write_annotations(path, carried)
        view.append(f"wrote {options.output}")
    return Result(
        exit=Exit.PASS,
        data={
            "conditions": names,
            "read": len(report.samples),
            "kept": [sample.sample_id for sample in kept.samples],
            "unknown": dict(kept.unknown),
            "totals": totals,
            "output": options.output,
        },
        view=(*view, _table(kept.samples)) if kept.samples else tuple(view),
        notes=tuple(notes),
    )


def _table(samples: list[Sample]) -> Table:
    table = Table("sample", "status", "position", "shift", "prompt tokens", "prompt")
    for sample in samples[:_SHOWN]:
        shift, length = conditions.shift(sample), conditions.prompt_length(sample)
        table.add_row(
            Text(sample.sample_id),
            sample.status,
            "" if sample.flip is None else str(sample.flip.position),
            "" if shift is None else f"{shift:.4g}",
            "" if length is None else f"{length:g}",
            Text((sample.prompt or str(sample.messages or ""))[:60].replace("\n", " ")),
        )
    if len(samples) > _SHOWN:
        table.add_row(f"and {len(samples) - _SHOWN} more")
    return table
