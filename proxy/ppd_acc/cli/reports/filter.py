"""filter: the samples of a report that meet all conditions, as a report again."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import between, not_negative
from ppd_acc.cli.reports.source import add_report_flags, report_from
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.data.report import STATUSES, Sample
from ppd_acc.data.report_files import totals_of, write_report
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports import conditions
from ppd_acc.reports.annotations import Annotation, read_annotations, write_annotations
from ppd_acc.reports.conditions import Condition
from ppd_acc.views import counted

_CLASSIFICATIONS = ("match", "likely_bug", "likely_uncertainty", "unknown")
"""What the published tool calls samples; kept in the metadata of its reports."""
_SHOWN = 20
_number = between(-math.inf, math.inf)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_report_flags(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the report of what is kept (default: only listed)")
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


async def run(args: argparse.Namespace, context: Context) -> Result:
    report = await report_from(args, context)
    annotations = read_annotations(context.directory / args.report) if args.report is not None else {}
    wanted = conditions_of(args, annotations)
    kept = conditions.keep(report.samples, wanted)
    names = [each.name for each in wanted]
    notes = [*notes_of(report)]
    notes += [
        f"{counted(count, 'sample')} left out that do not tell: {name}" for name, count in kept.unknown.items()
    ]  # fmt: skip
    if not kept.samples:
        notes.append("no sample meets the conditions")
    totals = totals_of((each.status for each in kept.samples), report.totals.confidence if report.totals else 0.95)
    view = [Text(f"{len(kept.samples)} of {len(report.samples)} samples" + (f": {'; '.join(names)}" if names else ""))]
    if args.output is not None:
        path = context.directory / args.output
        if path.is_dir() or not path.parent.is_dir():
            raise Mistake(f"--output {args.output}: it must be a file in a directory that exists")
        settings = {**report.settings, "filter": names, "filtered_from_samples": len(report.samples)}
        # The gate was of all samples; none of a part of them, chosen by outcome, means anything.
        made = msgspec.structs.replace(report, samples=kept.samples, totals=totals, settings=settings, gate={})
        write_report(made, path, "--output")
        ids = {sample.sample_id for sample in kept.samples}
        if carried := {name: each for name, each in annotations.items() if name in ids}:
            write_annotations(path, carried)
        view.append(Text(f"wrote {args.output}"))
    return Result(
        exit=Exit.PASS,
        data={
            "conditions": names,
            "read": len(report.samples),
            "kept": [sample.sample_id for sample in kept.samples],
            "unknown": dict(kept.unknown),
            "totals": totals,
            "output": args.output,
        },
        view=(*view, _table(kept.samples)) if kept.samples else tuple(view),
        notes=tuple(notes),
    )


def conditions_of(args: argparse.Namespace, annotations: Mapping[str, Annotation]) -> list[Condition]:
    """Raises Mistake for a status that there is not, or a pattern that is none."""
    found: list[Condition] = []
    statuses = [each.strip() for text in args.status or () for each in text.split(",")]
    for each in statuses:
        if each not in STATUSES:
            raise Mistake(f"--status {each!r}: it must be one of {', '.join(STATUSES)}")
    if statuses:
        found.append(conditions.has_status(statuses))
    if args.classification in _CLASSIFICATIONS:
        found.append(conditions.has_tag(f"classification={args.classification}"))
    elif args.classification is not None:
        found.append(conditions.has_status([args.classification]))
    if args.divergent_only:
        found.append(conditions.has_status(("tie", "real", "unclassified")))
    if args.matched_only:
        found.append(conditions.has_status(("equal",)))
    for name, figure, low, high in (
        ("position", conditions.position, args.min_position, args.max_position),
        ("shift", conditions.shift, args.min_shift, args.max_shift),
    ):
        found += conditions.within(name, figure, low, high, is_of_difference=True)
    found += conditions.within("delta", conditions.largest_delta, args.min_delta, args.max_delta)
    found += conditions.within(
        "prompt tokens", conditions.prompt_length, args.min_prompt_tokens, args.max_prompt_tokens
    )
    found += conditions.within(
        "answer tokens", conditions.answer_length, args.min_answer_tokens, args.max_answer_tokens
    )
    if args.id is not None:
        try:
            found.append(conditions.has_id(re.compile(args.id)))
        except re.error as error:
            raise Mistake(f"--id {args.id!r}: no regular expression: {error}") from None
    if args.search is not None:
        found.append(conditions.has_text(args.search))
    found += [conditions.has_tag(tag) for tag in args.tag or ()]
    found += [conditions.has_label(label, annotations) for label in args.label or ()]
    if args.annotated or args.unannotated:
        found.append(conditions.is_annotated(args.annotated, annotations))
    return found


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


COMMANDS = (Command(name="filter", add_arguments=add_arguments, run=run),)
