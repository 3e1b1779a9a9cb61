"""Compares two KV dumps, one array of both at a time, and keeps of each what report, plot and CacheBlend view need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppd_acc.kv.files import Entry, KvFile, Layout, mismatch_of
from ppd_acc.kv.names import Pair, pair_up
from ppd_accuracy.kv.comparison import CacheComparison, CacheRules, compare_tensors
from ppd_accuracy.kv.elements import ElementType, coarser
from ppd_accuracy.kv.figures import Axis
from ppd_accuracy.kv.findings import CacheFinding
from ppd_accuracy.kv.layers import Sampled, find_moved_layers
from ppd_accuracy.kv.rows import Floats
from ppd_accuracy.kv.tolerance import Tolerance, allowed_type

BLOCK_SIZE = 16
"""vLLM's default, where neither flag nor metadata say."""
Status = Literal["identical", "rounding", "tolerance", "different", "not_finite", "missing", "shape", "type", "empty"]
_PASSING = ("identical", "rounding", "tolerance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`dtype` overrides what files say; `block_size` None is the files'; `has_deviations` keeps them per token;
    `layout` is of arrays with three dimensions."""

    dtype: ElementType | None = None
    limits: Tolerance = field(default_factory=Tolerance)
    block_size: int | None = None
    details: Sequence[Axis] = ()
    has_deviations: bool = False
    layout: Layout = "heads-tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A dump in a report. `about` is its metadata without the token ids."""

    path: str
    format: str
    arrays: int
    tokens: int | None
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One array of both dumps; `comparison` is None where they cannot be compared, and `reason` says why."""

    pair: Pair
    status: Status
    reason: str
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    types: tuple[str | None, str | None]
    comparison: CacheComparison | None = None

    @property
    def is_pass(self) -> bool:
        return self.status in _PASSING

    @property
    def name(self) -> str:
        return self.pair.about.name


@dataclass(frozen=True, slots=True, kw_only=True)
class KvReport:
    """`prompts` says how the dumps' token ids differ, empty where they do not or are not known. `layers` are findings
    about more than one array."""

    baseline: Side
    target: Side
    block_size: int
    checked: tuple[Checked, ...]
    layers: tuple[CacheFinding, ...]
    prompts: str
    notes: tuple[str, ...]

    @property
    def is_match(self) -> bool:
        return bool(self.checked) and not self.prompts and all(each.is_pass for each in self.checked)

    @property
    def different(self) -> tuple[Checked, ...]:
        return tuple(each for each in self.checked if not each.is_pass)

    def deviations(self) -> tuple[dict[int, Floats], list[str]]:
        """Of each layer's V (MLA: latent), and notes where a layer has more than one."""
        found: dict[int, Floats] = {}
        points: dict[int, str] = {}
        notes = []
        for each in self.checked:
            about = each.pair.about
            if about.kind not in ("value", "latent") or about.layer is None or each.comparison is None:
                continue
            if about.layer in found:
                notes.append(f"CacheBlend view: {about.name} left out, layer {about.layer} is {points[about.layer]}")
                continue
            found[about.layer] = each.comparison.deviations
            points[about.layer] = about.name
        return dict(sorted(found.items())), notes


def check_dumps(
    baseline: Path, target: Path, options: Options, progress: Callable[[int, int], None] | None = None
) -> KvReport:
    """`progress` is told how many arrays are done, of how many. Raises KvFileError for a file that is no dump."""
    with (
        KvFile(baseline, options.dtype, options.layout) as one,
        KvFile(target, options.dtype, options.layout) as other,
    ):
        pairs, notes = pair_up(one.entries, other.entries)
        block_size = options.block_size or one.block_size or other.block_size or BLOCK_SIZE
        notes = [*one.notes, *other.notes, *notes, *_notes(one, other), *_layout_notes(one, other, options.layout)]
        rules = CacheRules(limits=options.limits, block_size=block_size, details=options.details)
        checked, sampled = [], []
        for done, pair in enumerate(pairs):
            if progress is not None:
                progress(done, len(pairs))
            found = _check(one, other, pair, replace(rules, declared=_declared(one, other, pair, options.dtype)))
            sampled += _sampled(found)
            checked.append(_without_samples(found, options))
        if progress is not None and pairs:
            progress(len(pairs), len(pairs))
        return KvReport(
            baseline=_side(one),
            target=_side(other),
            block_size=block_size,
            checked=tuple(checked),
            layers=find_moved_layers(sampled),
            prompts=_prompts(one, other),
            notes=tuple(notes),
        )


def _check(one: KvFile, other: KvFile, pair: Pair, rules: CacheRules) -> Checked:
    first = one.entries[pair.baseline] if pair.baseline is not None else None
    second = other.entries[pair.target] if pair.target is not None else None
    shapes = (first.stored_shape if first else None, second.stored_shape if second else None)
    types = (_type(first), _type(second))
    obstacle = _obstacle(first, second)
    if obstacle is not None:
        status, reason = obstacle
        return Checked(pair=pair, status=status, reason=reason, shapes=shapes, types=types)
    assert pair.baseline is not None
    assert pair.target is not None
    comparison = compare_tensors(one.open(pair.baseline), other.open(pair.target), rules)
    verdict = comparison.verdict
    return Checked(
        pair=pair, status=verdict.status, reason=verdict.reason, shapes=shapes, types=types, comparison=comparison
    )


def _obstacle(first: Entry | None, second: Entry | None) -> tuple[Status, str] | None:
    """Why two arrays cannot be compared."""
    if first is None or second is None:
        return "missing", f"only in the {'target' if first is None else 'baseline'}"
    for side, entry in (("baseline", first), ("target", second)):
        if entry.element is None:
            return "type", f"{side}: dtype {entry.type_name} holds no numbers that can be compared"
    if first.stored_shape != second.stored_shape:
        return "shape", f"shape {list(first.stored_shape)} against {list(second.stored_shape)}"
    if 0 in first.stored_shape:
        return "empty", f"shape {list(first.stored_shape)} has no elements: nothing was compared"
    return None


def _type(entry: Entry | None) -> str | None:
    if entry is None:
        return None
    return entry.element.name if entry.element is not None else entry.type_name


def _declared(one: KvFile, other: KvFile, pair: Pair, given: ElementType | None) -> ElementType | None:
    """The type whose rounding is allowed: the flag's, else what both dumps' metadata say, unless these arrays are
    coarser (a dump names its first layer's type)."""
    if given is not None or one.declared is None or other.declared is None:
        return given
    types = []
    for declared, file, name in ((one.declared, one, pair.baseline), (other.declared, other, pair.target)):
        element = file.entries[name].element if name is not None else None
        types.append(declared if element is None else coarser(declared, element))
    return allowed_type(*types)


def _sampled(checked: Checked) -> list[Sampled]:
    about, comparison = checked.pair.about, checked.comparison
    if comparison is None or about.layer is None:
        return []
    baseline, target = comparison.samples
    return [
        Sampled(
            layer=about.layer, kind=about.kind, group=about.point, shape=comparison.shape, baseline=baseline,
            target=target, element=comparison.verdict.element, is_different=not checked.is_pass,
        )
    ]  # fmt: skip


def _without_samples(checked: Checked, options: Options) -> Checked:
    """What is not needed once the array is done is let go."""
    comparison = checked.comparison
    if comparison is None:
        return checked
    empty = np.zeros((0, 0), np.float32)
    deviations = comparison.deviations if options.has_deviations else np.zeros(0)
    return replace(checked, comparison=replace(comparison, deviations=deviations, samples=(empty, empty)))


def _side(file: KvFile) -> Side:
    about = {name: value for name, value in file.metadata.items() if name not in ("token_ids", "layers")}
    ids = file.token_ids
    return Side(
        path=str(file.path), format=file.format, arrays=len(file.entries),
        tokens=None if ids is None else len(ids), about=about,
    )  # fmt: skip


def _prompts(one: KvFile, other: KvFile) -> str:
    place = mismatch_of(one.token_ids, other.token_ids)
    if place is None:
        return ""
    counts = f"{len(one.token_ids or ())} and {len(other.token_ids or ())} tokens"
    return f"the dumps are of different prompts ({counts}): token ids differ from position {place} on"


def _notes(one: KvFile, other: KvFile) -> list[str]:
    notes = []
    for name in ("dtype", "block_size", "request_id", "rank"):
        first, second = one.metadata.get(name), other.metadata.get(name)
        if first is not None and second is not None and first != second:
            notes.append(f"metadata {name} differs: {first!r} in the baseline, {second!r} in the target")
    unknown = [file for file in (one, other) if file.metadata.get("dtype") is not None and file.declared is None]
    notes += [f"{file.path}: metadata dtype {file.metadata['dtype']!r} is unknown and not used" for file in unknown]
    return notes


def _layout_notes(one: KvFile, other: KvFile, layout: Layout) -> list[str]:
    """Where three-dimensional arrays look as if the axes were in another order. Our connector's dumps say `side` and
    `rank`: theirs are known."""
    files = [file for file in (one, other) if not {"side", "rank"} <= file.metadata.keys()]
    shapes = [entry.shape for file in files for entry in file.entries.values() if len(entry.stored_shape) == 3]
    if not any(heads > tokens for heads, tokens, _ in shapes):
        return []
    if layout == "tokens-heads":
        return ["more heads than tokens: if the arrays are (heads, tokens, channels), leave out --layout tokens-heads"]
    return ["more heads than tokens: if the arrays are (tokens, heads, channels), say --layout tokens-heads"]
