"""How far the engines' logprobs are apart, and how sure both were where their answers part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ppd_acc.data.report import Noise
from ppd_acc.page.drawing import Key, Picture, axes, dots, label, mark, path, plot_area, shape_of, stairs
from ppd_acc.page.markup import element, table
from ppd_acc.page.scales import Kind, Scale, apart, number, rounded_up
from ppd_acc.page.series import Cloud, Deltas, Floats, Margin

_LEAST_NATS = 1e-7
_ROOM_FOR_LABELS = 84.0
_MOST_MARKS = 400
_STATUSES = (("equal", "equal"), ("tie", "tie"), ("unclassified", "unclassified"), ("real", "real difference"))


def positions_picture(deltas: Deltas, noise: Noise) -> Picture:
    """|logprob difference| of every token by its position, with the noise floor's quantiles as lines."""
    name, title = "positions", "Logprob difference by position"
    cloud = deltas.cloud
    if not cloud.total:
        why = "No engine told logprobs of tokens: there is nothing to hold against each other."
        return Picture(name=name, title=title, finding=why)
    lines = floor_lines(noise)
    largest = max(band.largest for band in deltas.bands)
    y = _nats_scale(cloud.y, [largest, *lines.values()])
    x, _ = plot_area(low_x=0, high_x=max(1, max(band.stop for band in deltas.bands)), low_y=1, high_y=2,
                     right=_ROOM_FOR_LABELS)  # fmt: skip
    limit = noise.largest_delta if noise.largest_delta is not None else math.inf
    places = [(x(at), y(value)) for at, value in zip(cloud.x.tolist(), cloud.y.tolist(), strict=True)]
    is_beyond = (cloud.y > limit).tolist()
    parts = [
        axes(x, y, "token position", "|logprob difference| (nats)"),
        dots((point for point, beyond in zip(places, is_beyond, strict=True) if not beyond), "equal"),
        dots((point for point, beyond in zip(places, is_beyond, strict=True) if beyond), "real"),
        *_band_lines(deltas, x, y),
        *_floor_marks(lines, x, y),
    ]
    beyond = int((cloud.y > limit).sum())
    shown = f"{len(cloud.y):,} of {cloud.total:,} points are drawn: the largest, and an even choice of the others. "
    zeros = int((cloud.y == 0).sum())
    return Picture(
        name=name,
        title=title,
        finding=_delta_finding(largest, noise, beyond),
        description=f"Scatter of {cloud.total} tokens before the first difference; the largest is {number(largest)}"
        f" nats. {_told_lines(lines)}",
        parts=parts,
        keys=_delta_keys(lines, beyond, has_bands=True),
        note=(shown if len(cloud.y) < cloud.total else "")
        + "Only tokens before the first difference: both engines were in the same context there."
        + (f" {zeros:,} of the drawn ones are exactly 0, at the lower edge." if zeros else "")
        + (f" {deltas.not_numbers:,} were no numbers." if deltas.not_numbers else ""),
        numbers=table(
            ("Positions", "Tokens", "Median", "99th percentile", "Largest"),
            [
                (f"{b.start:,}\u2013{b.stop - 1:,}", b.count, number(b.median), number(b.p99), number(b.largest))
                for b in deltas.bands
            ],
            caption=f"|logprob difference| in nats. {_told_lines(lines)}",
        ),
    )


def prompts_picture(cloud: Cloud, noise: Noise, unit: str) -> Picture:
    """Each sample's largest |logprob difference| by the length of its prompt."""
    name, title = "prompts", "Largest logprob difference by prompt length"
    if not cloud.total:
        return Picture(name=name, title=title, finding="No sample has logprobs and a known prompt length.")
    lines = floor_lines(noise)
    y = _nats_scale(cloud.y, list(lines.values()))
    low, high = max(1.0, float(cloud.x.min())), max(2.0, float(cloud.x.max()))
    kind: Kind = "log" if high / low > 8 else "linear"
    pad = (high - low) * 0.04 if kind == "linear" else 0.0
    x, _ = plot_area(low_x=low - pad if kind == "linear" else low / 1.15, low_y=1, high_y=2, kind_x=kind,
                     high_x=high + pad if kind == "linear" else high * 1.15, right=_ROOM_FOR_LABELS)  # fmt: skip
    parts = [axes(x, y, f"prompt length ({unit})", "largest |logprob difference| of a sample (nats)")]
    parts += _floor_marks(lines, x, y)
    keys = []
    for status, told in _STATUSES:
        chosen = [index for index, each in enumerate(cloud.status) if each == status]
        points = [(x(cloud.x[index]), y(cloud.y[index])) for index in chosen]
        if points and (status == "equal" or len(points) > _MOST_MARKS):
            parts.append(dots(points, status))
        else:
            parts += [mark(shape_of(status), *point, status) for point in points]
        if points:
            keys.append(Key(class_=status, label=told, kind=shape_of(status)))
    limit = noise.largest_delta if noise.largest_delta is not None else math.inf
    return Picture(
        name=name,
        title=title,
        finding=_prompt_finding(cloud, noise, int((cloud.y > limit).sum())),
        description=f"Scatter of {cloud.total} samples. {_told_lines(lines)}",
        parts=parts,
        keys=[*keys, *_delta_keys(lines, 0, has_bands=False)],
        note="Tokens before the first difference."
        + (f" {len(cloud.y):,} of {cloud.total:,} samples are drawn." if len(cloud.y) < cloud.total else ""),
        numbers=_prompt_numbers(cloud, unit),
    )


def margins_picture(found: Sequence[Margin], noise: Noise, anchors: Mapping[str, str]) -> Picture:
    """Both margins of each first difference; the tie region of the noise floor is shaded."""
    name, title = "margins", "How sure both were where they part"
    if not found:
        return Picture(name=name, title=title, finding="No first difference has known margins.")
    shift = noise.largest_shift
    high = max([*((each.baseline or 0.0) for each in found), *((each.target or 0.0) for each in found)])
    high = rounded_up(max(high, 1.15 * (shift or 0.0), 1e-3))
    knee = shift / 2 if shift else high / 100
    x, y = plot_area(low_x=0, high_x=high, low_y=0, high_y=high, kind_x="knee", kind_y="knee", knee=knee)
    parts = []
    if shift is not None:
        edge = [(x(shift * step / 40), y(shift * (1 - step / 40))) for step in range(41)]
        parts.append(path([*edge, (x(0), y(0))], "area floor", is_closed=True))
        parts.append(path(edge, "line floor dashes"))
    parts.append(axes(x, y, "baseline's margin (nats)", "target's margin (nats)"))
    # The ones that matter are drawn last, on top.
    for each in sorted(found[:_MOST_MARKS], key=lambda each: each.status == "real"):
        hollow = " hollow" if each.is_bound else ""
        drawn = mark(shape_of(each.status), x(each.baseline or 0.0), y(each.target or 0.0), each.status + hollow,
                     _told_margin(each))  # fmt: skip
        anchor = anchors.get(each.sample_id)
        parts.append(element("a", drawn, href=f"#{anchor}") if anchor else drawn)
    beyond = sum(each.status == "real" for each in found)
    finding = f"{beyond:,} of {len(found):,} first differences lie outside what noise explains."
    if shift is None:
        finding = f"{len(found):,} first differences; without a noise floor none of them can be called a tie."
    statuses = {each.status for each in found}
    keys = [Key(class_=status, label=told, kind=shape_of(status)) for status, told in _STATUSES if status in statuses]
    if any(each.is_bound for each in found):
        keys.append(Key(class_="equal", label="hollow: at least this much", kind="hollow"))
    if shift is not None:
        keys.append(Key(class_="floor", label=f"tie: together at most {number(shift)} nats", kind="area"))
    more = f" The {_MOST_MARKS} largest of {len(found):,} are drawn." if len(found) > _MOST_MARKS else ""
    return Picture(
        name=name,
        title=title,
        finding=finding,
        description=f"Scatter of both margins of {len(found)} first differences, {beyond} of them real.",
        parts=parts,
        keys=keys,
        note="A margin is by how much an engine preferred its own token to the other's. Both together are the"
        f" shift. The axes are linear up to the tie region, then logarithmic. A point leads to its sample.{more}",
        numbers=table(
            ("Sample", "Status", "Position", "Baseline's margin", "Target's margin", "Bound"),
            [
                (e.sample_id[:60], e.status, e.position, _or_unknown(e.baseline), _or_unknown(e.target),
                 "yes" if e.is_bound else "no")
                for e in found[:50]
            ],
            caption="Margins in nats, largest shift first" + (", the first 50" if len(found) > 50 else ""),
        ),
    )  # fmt: skip


def floor_lines(noise: Noise) -> dict[str, float]:
    """The noise floor's quantiles and its largest |logprob difference|, by name; rising."""
    known = {name: value for name, value in noise.delta_quantiles.items() if math.isfinite(value) and value >= 0}
    if noise.largest_delta is not None:
        known["max"] = noise.largest_delta
    return dict(sorted(known.items(), key=lambda each: each[1]))


def _nats_scale(values: Floats, others: Sequence[float]) -> Scale:
    """Logarithmic; what is smaller than nearly all of the numbers is drawn at the lower edge."""
    positive = values[values > 0]
    above = [float(np.quantile(positive, 0.01))] if len(positive) else [each for each in others if each > 0]
    low = max(_LEAST_NATS, min(above, default=1e-3) * 0.7)
    high = max([*others, *positive.tolist(), low * 10]) * 1.3
    return plot_area(low_x=0, high_x=1, low_y=low, high_y=high, kind_y="log")[1]


def _band_lines(deltas: Deltas, x: Scale, y: Scale) -> list[Markup]:
    found = []
    for class_, values in (
        ("any median", [band.median for band in deltas.bands]),
        ("any", [band.p99 for band in deltas.bands]),
    ):
        points = [(x(band.start), y(value)) for band, value in zip(deltas.bands, values, strict=True)]
        points.append((x(deltas.bands[-1].stop), points[-1][1]))
        found.append(path(stairs(points), f"line {class_}"))
    return found


def _floor_marks(lines: Mapping[str, float], x: Scale, y: Scale) -> list[Markup]:
    """Dashed lines with their names at the right, moved apart where they would touch; the axis leaves out low ones."""
    lines = {name: value for name, value in lines.items() if value >= y.low}
    places = [y(value) for value in lines.values()]
    labels = apart([each + 4 for each in places], 14, y.end, y.start)
    found = []
    for (name, _), at, text in zip(lines.items(), places, labels, strict=True):
        found.append(path([(x.start, at), (x.end, at)], "line floor dashes"))
        found.append(path([(x.end, at), (x.end + 8, text - 4)], "leader"))
        found.append(label(x.end + 11, text, f"floor {name}", "tick"))
    return found


def _delta_keys(lines: Mapping[str, float], beyond: int, *, has_bands: bool) -> list[Key]:
    keys = []
    if has_bands:
        keys.append(Key(class_="equal", label="token", kind="dot"))
        if beyond:
            keys.append(Key(class_="real", label="token beyond the noise floor", kind="dot"))
        keys += [Key(class_="any median", label="median"), Key(class_="any", label="99th percentile")]
    if lines:
        keys.append(Key(class_="floor", label="noise floor's quantiles", kind="dashes"))
    return keys


def _delta_finding(largest: float, noise: Noise, beyond: int) -> str:
    if noise.largest_delta is None:
        return f"The largest is {number(largest)} nats; without a noise floor nothing says whether that is much."
    against = f"the noise floor's largest, {number(noise.largest_delta)} nats"
    if beyond:
        return f"The largest is {number(largest)} nats, beyond {against}."
    return f"The largest is {number(largest)} nats, within {against}."


def _prompt_finding(cloud: Cloud, noise: Noise, beyond: int) -> str:
    if noise.largest_delta is None:
        return f"{cloud.total:,} samples; without a noise floor nothing says whether a difference is much."
    if beyond:
        return f"{beyond:,} of {cloud.total:,} samples have a token beyond the noise floor's largest."
    return f"None of {cloud.total:,} samples has a token beyond the noise floor's largest."


def _prompt_numbers(cloud: Cloud, unit: str) -> Markup:
    edges = np.unique(np.quantile(cloud.x, np.linspace(0, 1, 9), method="higher"))
    rows = []
    for low, high in zip(edges, edges[1:] if len(edges) > 1 else edges, strict=False):
        is_inside = (cloud.x >= low) & ((cloud.x < high) | (high == edges[-1]))
        values = cloud.y[is_inside]
        if len(values):
            inside = cloud.x[is_inside]
            median = number(float(np.median(values)))
            rows.append(
                (f"{inside.min():,.0f}\u2013{inside.max():,.0f}", len(values), median, number(float(values.max())))
            )
    head = (f"Prompt {unit}", "Samples", "Median", "Largest")
    return table(head, rows, caption="Largest |logprob difference| of the drawn samples, nats")


def _told_margin(each: Margin) -> str:
    bound = ", at least" if each.is_bound else ""
    return (
        f"{each.sample_id[:60]}: {each.status} at {each.position}; baseline {_or_unknown(each.baseline)}, target"
        f" {_or_unknown(each.target)} nats{bound}"
    )


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else number(value)


def _told_lines(lines: Mapping[str, float]) -> str:
    if not lines:
        return "No noise floor was measured."
    return f"Noise floor: {', '.join(f'{name} {number(value)}' for name, value in lines.items())} nats."
