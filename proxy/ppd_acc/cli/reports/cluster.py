"""cluster: which divergent samples look alike?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median
from types import MappingProxyType
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.flags import positive
from ppd_acc.cli.options import value
from ppd_acc.cli.reports.source import Source, report_from, source_flags
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.data.report import Sample
from ppd_acc.outcome import Exit, Result
from ppd_acc.reports import conditions
from ppd_acc.reports.conditions import Figure
from ppd_acc.surroundings import Surroundings
from ppd_accuracy.statistics import clusters

_SEED = 42
_LISTED = 8
_TAGS = 3


def _relative_position(sample: Sample) -> float | None:
    return sample.flip.position / sample.longest if sample.flip is not None and sample.longest else None


FEATURES: Mapping[str, Figure] = MappingProxyType(
    {
        "position": attrgetter("first_divergence"),
        "relative_position": _relative_position,
        "shift": conditions.shift,
        "max_delta": attrgetter("max_delta"),
        "prompt_length": conditions.prompt_length,
        "answer_length": conditions.answer_length,
    }
)
"""What samples are told apart by; all but the relative position as logarithms, as twice as long is as far as half."""
_LEAST_NATS = 1e-6


def _count(text: str) -> int | None:
    return None if text == "auto" else positive(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: Source = source_flags()
    clusters: int | None = value(
        "K|auto", f"how many (default auto: up to {clusters.MOST_GROUPS}, or one where there is no structure)", _count
    )
    seed: int = value("N", "of the first centres", int, _SEED)


async def run(options: Options, _: Surroundings) -> Result:
    report = await report_from(options.source)
    divergent = [sample for sample in report.samples if sample.is_divergent]
    notes = [*notes_of(report)]
    grouped = clusters.group([features_of(sample) for sample in divergent], abs(options.seed), options.clusters)
    if options.clusters is not None and len(grouped.groups) < options.clusters:
        notes.append(f"--clusters {options.clusters}: there are only {len(grouped.groups)} different kinds of samples")
    for name, figure in FEATURES.items():
        missing = sum(figure(sample) is None for sample in divergent)
        if missing:
            notes.append(f"{missing} of {len(divergent)} samples do not tell their {name.replace('_', ' ')}")
    groups = [_group(group, divergent) for group in grouped.groups]
    data = {
        "samples": len(report.samples),
        "divergent": len(divergent),
        "clusters": groups,
        "silhouette": grouped.silhouette,
        "tried": [{"clusters": number, "silhouette": score} for number, score in grouped.tried],
        "seed": options.seed,
    }
    return Result(exit=Exit.PASS, data=data, view=tuple(_view(data, groups)), notes=tuple(notes))


def features_of(sample: Sample) -> dict[str, float | None]:
    """Numbers for the distance; what is not known stays unknown."""
    return {name: _scaled(name, figure(sample)) for name, figure in FEATURES.items()}


def _scaled(name: str, value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    if name in ("shift", "max_delta"):
        return math.log(max(value, _LEAST_NATS))
    return value if name == "relative_position" else math.log1p(value)


def _group(group: clusters.Group, divergent: Sequence[Sample]) -> dict[str, Any]:
    members = [divergent[index] for index in group.members]
    tags = Counter(tag for sample in members for tag in sample.tags)
    return {
        "size": len(members),
        "sample_ids": [sample.sample_id for sample in members],
        "typical": divergent[group.centre].sample_id,
        "statuses": dict(Counter(sample.status for sample in members)),
        "tags": dict(tags.most_common(_TAGS)),
        "features": {name: _range(figure, members) for name, figure in FEATURES.items()},
    }


def _range(figure: Figure, members: Sequence[Sample]) -> dict[str, float | int | None]:
    values = [value for value in map(figure, members) if value is not None and math.isfinite(value)]
    known = {"median": median(values), "low": min(values), "high": max(values)} if values else {}
    return {"known": len(values), "median": None, "low": None, "high": None, **known}


def _view(data: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    if not groups:
        return [f"no divergent sample among {data['samples']}"]
    silhouette = data["silhouette"]
    how = "no structure: they are one kind" if silhouette is None else f"silhouette {silhouette:.2f}"
    table = Table("cluster", "samples", "statuses", *(name.replace("_", " ") for name in FEATURES), "typical")
    for number, group in enumerate(groups):
        table.add_row(
            str(number),
            str(group["size"]),
            ", ".join(f"{count} {status}" for status, count in group["statuses"].items()),
            *(_shown(group["features"][name]) for name in FEATURES),
            Text(group["typical"]),
        )
    head = f"{data['divergent']} divergent samples in {len(groups)} clusters; {how}"
    view: list[RenderableType] = [head, table]
    for number, group in enumerate(groups):
        ids = ", ".join(group["sample_ids"][:_LISTED]) + (", ..." if group["size"] > _LISTED else "")
        tags = ", ".join(f"{tag} {count}" for tag, count in group["tags"].items())
        view.append(f"{number}: {ids}" + (f" (tags: {tags})" if tags else ""))
    return view


def _shown(spread: Mapping[str, float | None]) -> str:
    if spread["median"] is None:
        return "unknown"
    if spread["low"] == spread["high"]:
        return f"{spread['median']:.4g}"
    return f"{spread['median']:.4g} ({spread['low']:.4g} to {spread['high']:.4g})"
