"""Tensors that hold another tensor's content: swapped or moved layers, keys in place of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppd_accuracy.kv.elements import ElementType
from ppd_accuracy.kv.findings import CacheFinding, told, told_moves
from ppd_accuracy.kv.sketches import Sketch, match_tolerance, row_lengths

_MATCHING_SHARE = 0.8
_BETTER = 0.5
"""Of the distance from the tensor's own rows."""
_NEAR, _FEWEST_ROWS = 0.35, 8
"""Of a row's distance from what so many rows have in common: the usual distance between two is 1.4 times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Rows of one tensor on both sides (`sketches.sample`). `group` keeps apart what cannot be exchanged: the kind,
    and with the published layout the point of capture. `is_different` is the tensor's verdict."""

    layer: int
    kind: str
    group: str
    shape: tuple[int, int, int]
    baseline: Sketch
    target: Sketch
    element: ElementType
    is_different: bool


def find_moved_layers(tensors: Sequence[Sampled]) -> tuple[CacheFinding, ...]:
    """Findings about layers, of each kind; layers that are right are not mentioned."""
    groups: dict[tuple[str, str], list[Sampled]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.group, tensor.kind), []).append(tensor)
    moves: dict[tuple[tuple[int, ...], tuple[int, ...], int], list[str]] = {}
    for (_, kind), group in groups.items():
        found = _moves(group)
        if found:
            key = (tuple(found), tuple(found.values()), len(group))
            moves.setdefault(key, []).append(kind)
    layers = []
    for (moved, sources, count), kinds in moves.items():
        words = told_moves("layer", moved, sources, count)
        which = " and ".join(dict.fromkeys(kinds))
        text = f"{words} ({which})"
        layers.append(CacheFinding(kind="moved_layers", text=text, layers=moved, sources=sources))
    return (*layers, *_keys_for_values(tensors))


def _moves(group: Sequence[Sampled]) -> Mapping[int, int]:
    """Layer to the layer whose content it holds, where that is another one."""
    found = {}
    for tensor in group:
        if not tensor.is_different:
            continue
        for other in group:
            if other is not tensor and _holds(tensor, other):
                found[tensor.layer] = other.layer
                break
    return found


def _keys_for_values(tensors: Sequence[Sampled]) -> Iterator[CacheFinding]:
    places = {(tensor.group, tensor.layer, tensor.kind): tensor for tensor in tensors}
    swapped = []
    for (group, layer, kind), keys in places.items():
        values = places.get((group, layer, "value"))
        if kind == "key" and values is not None and keys.is_different and values.is_different:
            if _holds(keys, values) and _holds(values, keys):
                swapped.append(layer)
    if swapped:
        text = f"keys and values are swapped in {told('layer', sorted(swapped))}"
        yield CacheFinding(kind="key_for_value", text=text, layers=tuple(swapped))


def _holds(tensor: Sampled, other: Sampled) -> bool:
    """Whether the target's numbers of `tensor` are the baseline's of `other`, and much closer to them than to its own.
    """
    if tensor.shape != other.shape:
        return False
    lengths = row_lengths(other.baseline)
    limits = match_tolerance(tensor.element) * lengths
    if len(lengths) >= _FEWEST_ROWS:
        limits = np.minimum(limits, _NEAR * row_lengths(other.baseline - np.median(other.baseline, axis=0)))
    apart, own = row_lengths(tensor.target - other.baseline), row_lengths(tensor.target - tensor.baseline)
    return bool(np.mean((apart <= limits) & (apart < _BETTER * own)) >= _MATCHING_SHARE)
