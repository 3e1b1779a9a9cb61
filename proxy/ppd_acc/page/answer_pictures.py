"""How many answers differ, where they part, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from ppd_acc.data.report import Sample
from ppd_acc.page.drawing import HEIGHT, WIDTH, Key, Picture, axes, label, mark, path, plot_area, stairs, whisker
from ppd_acc.page.markup import table
from ppd_acc.page.scales import Kind, Scale, rounded_up
from ppd_acc.page.series import Bin, Share, equal_tokens, survival
from ppd_accuracy.statistics.intervals import difference, wilson
from ppd_accuracy.statistics.survival import Curve, survival_at

_SHARE_CLASSES = ("any", "real", "floor")
_RISK_BOTTOM = 84.0


def percent(value: float | None, digits: int = 1) -> str:
    """With a space that no line breaks at."""
    return "unknown" if value is None else f"{100 * value:.{digits}f}\u00a0%"


def interval(share: Share) -> str:
    return f"{percent(share.interval.low)} to {percent(share.interval.high)}"


def told(share: Share) -> str:
    return f"{share.hits:,} of {share.total:,}: {percent(share.value)} ({interval(share)})"


def shares_picture(shares: Sequence[Share], confidence: float) -> Picture:
    """The totals beside the noise floor, on one axis."""
    known = [share for share in shares if share.total]
    high = min(1.0, rounded_up(max((share.interval.high for share in known), default=1.0)))
    x = Scale(low=0.0, high=high, start=24.0, end=WIDTH - 24.0)
    rows, bottom = [], 52.0 + 84.0 * len(shares)
    for each in x.ticks(5):
        rows.append(path([(x(each), 24.0), (x(each), bottom)], "grid"))
        rows.append(label(x(each), bottom + 18, percent(each, 0 if high > 0.05 else 2), "tick middle"))
    rows.append(path([(x.start, bottom), (x.end, bottom)], "axis"))
    rows.append(label((x.start + x.end) / 2, bottom + 38, "share of answers", "title middle"))
    for line, (share, class_) in enumerate(zip(shares, _SHARE_CLASSES, strict=True)):
        top = 46.0 + 84.0 * line
        rows.append(label(x.start, top, share.name, "name"))
        rows.append(label(x.end, top, told(share) if share.total else "not measured", "value end"))
        if share.total:
            rows.append(whisker(top + 26, x(share.interval.low), x(share.interval.high), class_, is_flat=True))
            shape = "diamond" if class_ == "real" else "dot"
            rows.append(mark(shape, x(share.value or 0.0), top + 26, class_, told(share)))
    finding = _shares_finding(shares, confidence)
    return Picture(
        name="shares",
        title="Answers that differ, next to the noise floor",
        finding=finding,
        description=" ".join(f"{share.name}: {told(share)}." for share in known),
        parts=rows,
        note=f"Whiskers: Wilson's {percent(confidence, 0)} interval. Samples that failed are left out.",
        numbers=table(
            ("", "Answers", "of", "Share", "Interval"),
            [(s.name, s.hits, s.total, percent(s.value, 2), interval(s) if s.total else "") for s in shares],
            caption="Shares",
        ),
        height=bottom + 46,
    )


def _shares_finding(shares: Sequence[Share], confidence: float) -> str:
    rest, beyond, floor = shares
    if not rest.total:
        return "No answer was compared."
    if not floor.total:
        return "The noise floor was not measured: how often the baseline differs from itself is unknown."
    excess = difference(rest.hits, rest.total, floor.hits, floor.total, confidence)
    if excess.low > 0:
        return "Answers differ more often than the baseline's own do when it is asked again."
    if excess.high < 0:
        return "The baseline's own answers differ more often when it is asked again: look at the baseline first."
    if beyond.hits:
        return f"{beyond.hits} of {beyond.total} answers are no tie, however few differ: see the margins."
    if not rest.hits and not floor.hits:
        return "All answers are equal, and so are the baseline's own when it is asked again."
    return f"{floor.total} answers of the baseline, asked again, cannot tell that more differ than its own do."


def survival_picture(samples: Sequence[Sample], confidence: float, unit: str) -> Picture:
    """How many answers are still equal after each token."""
    name, title = "survival", "How long answers stay equal"
    watched = [_watched(sample) for sample in samples]
    if not watched or not max(watched):
        return Picture(name=name, title=title, finding=f"No answer of any {unit} was compared.")
    curves = [(survival(samples, confidence, is_tie_counted=True), "any", "no difference")]
    if any(sample.status == "tie" and sample.flip is not None for sample in samples):
        curves.append((survival(samples, confidence, is_tie_counted=False), "real", "none but ties"))
    longest = max(watched)
    bounds = [step.interval.low if step.interval else 0.0 for curve, _, _ in curves for step in curve.steps]
    lowest = min(bounds, default=0.95)
    low = 0.0 if lowest < 0.5 else max(0.0, int((lowest - 0.02) * 20) / 20)
    x, y = plot_area(low_x=0, high_x=longest, low_y=low, high_y=1.0, bottom=_RISK_BOTTOM)
    positions = [value for value in x.ticks() if value == int(value)]
    from_where = "" if low == 0 else f", axis from {percent(low, 0)}"
    parts = [
        axes(
            x,
            y,
            f"{unit[:-1]} position",
            f"share still equal{from_where}",
            show_y=lambda v: percent(v, 0),
            ticks_x=positions,
        )
    ]
    for curve, class_, _ in curves:
        parts += _curve(curve, longest, x, y, class_)
    parts.append(label(4, HEIGHT - 24, "still compared", "tick"))
    for value in positions:
        at_risk = sum(each > value for each in watched)
        parts.append(label(x(value), HEIGHT - 6, f"{at_risk:,}", "tick middle"))
    every = curves[0][0]
    finding = (
        f"{every.count - every.diverged:,} of {every.count:,} answers stay equal to their end"
        if every.diverged
        else f"No answer differs within {longest:,} {unit}"
    )
    median = every.median if every.diverged else None
    finding += "." if median is None else f"; half have parted by {unit[:-1]} {median:,}."
    return Picture(
        name=name,
        title=title,
        finding=finding,
        description=f"Kaplan-Meier curve from position 0 to {longest}; it ends at "
        + ", ".join(f"{percent(survival_at(curve, longest))} with {label_}" for curve, _, label_ in curves)
        + ".",
        parts=parts,
        keys=[Key(class_=class_, label=f"answers with {label_} so far") for _, class_, label_ in curves],
        note=f"Kaplan-Meier with its {percent(confidence, 0)} band. An answer that ends equal counts up to its end,"
        " then no longer.",
        numbers=_survival_numbers(curves, watched, [v for v in x.ticks(10) if v == int(v)], unit),
    )


def _watched(sample: Sample) -> int:
    """How many tokens were compared, the first different one among them."""
    position = sample.first_divergence
    return position + 1 if position is not None else equal_tokens(sample)


def _curve(curve: Curve, longest: int, x: Scale, y: Scale, class_: str) -> list[Markup]:
    """A difference at position p lowers the curve from p on."""
    points = [(0.0, 1.0, 1.0, 1.0)]
    for step in curve.steps:
        low, high = step.interval or (0.0, points[-1][3])
        points.append((float(step.position), step.survival, low, high))
    points.append((float(longest), *points[-1][1:]))
    lower = stairs([(x(at), y(low)) for at, _, low, _ in points])
    upper = stairs([(x(at), y(high)) for at, _, _, high in points])
    line = stairs([(x(at), y(value)) for at, value, _, _ in points])
    return [path([*upper, *reversed(lower)], f"area {class_}", is_closed=True), path(line, f"line {class_}")]


def _survival_numbers(
    curves: Sequence[tuple[Curve, str, str]], watched: Sequence[int], positions: Sequence[float], unit: str
) -> Markup:
    head = (f"{unit[:-1].capitalize()} position", "Still compared", *(f"Equal: {label_}" for _, _, label_ in curves))
    rows = [
        (
            int(position),
            sum(each > position for each in watched),
            *(percent(survival_at(curve, int(position)), 2) for curve, _, _ in curves),
        )
        for position in positions
    ]
    return table(head, rows, caption="Answers still equal after the token at a position")


def lengths_picture(bins: Sequence[Bin], floor: Share, unit: str, confidence: float) -> Picture:
    """The share of answers that differ, by the prompt's length."""
    name, title = "lengths", "Difference by prompt length"
    if not bins:
        return Picture(name=name, title=title, finding="No sample tells how long its prompt is.")
    first, last = bins[0].divergent, bins[-1].divergent
    finding = "All prompts are about equally long."
    if len(bins) > 1:
        finding = (
            f"Answers to the longest prompts differ {_held_against(last, first)} those to the shortest ones"
            f" ({percent(last.value)} against {percent(first.value)})."
        )
    note = f"About as many samples in each range; Wilson's {percent(confidence, 0)} intervals."
    picture = Picture(name=name, title=title, finding=finding, note=note)
    axis_titles = (f"prompt length ({unit})", "share of answers that differ")
    return _by_bins(picture, bins, floor if floor.total else None, axis_titles, ("Answers", f"Prompt {unit}"))


def hazard_picture(bins: Sequence[Bin], unit: str, confidence: float) -> Picture:
    """The chance per token to be the first that differs, by position."""
    name, title = "hazard", "Where answers part"
    one = unit[:-1]
    if not bins:
        return Picture(name=name, title=title, finding=f"No {one} was compared.")
    first, rest = bins[0].divergent, [each.divergent for each in bins[1:]]
    if not rest or not sum(each.total for each in rest):
        finding = f"Only the first {one} of each answer was compared."
    else:
        hits, total = sum(each.hits for each in rest), sum(each.total for each in rest)
        later = Share(name="later", hits=hits, total=total, interval=wilson(hits, total, confidence))
        by_prefill = ", which prefill gives," if one == "token" else ""
        finding = (
            f"The first {one}{by_prefill} differs {_held_against(first, later)} later ones"
            f" ({percent(first.value)} against {percent(later.value, 2)} per {one})."
        )
    note = f"Of the answers still equal at a position; Wilson's {percent(confidence, 0)} intervals."
    picture = Picture(name=name, title=title, finding=finding, note=note)
    axis_titles = (f"{one} position", f"chance to part, per {one}")
    return _by_bins(picture, bins, None, axis_titles, (f"{unit.capitalize()} compared", "Positions"))


def _held_against(one: Share, other: Share) -> str:
    if one.interval.low > other.interval.high:
        return "more often than"
    return "less often than" if one.interval.high < other.interval.low else "about as often as"


def _by_bins(
    picture: Picture, bins: Sequence[Bin], floor: Share | None, axis_titles: tuple[str, str], heads: tuple[str, str]
) -> Picture:
    """The picture, drawn: shares with intervals side by side, one place per bin, whatever its width."""
    tops = [each.divergent.interval.high for each in bins] + ([floor.interval.high] if floor else [])
    high, middle_top = min(1.0, rounded_up(max(tops))), sorted(tops)[len(tops) // 2]
    has_ties = any(each.divergent.hits != each.real.hits for each in bins)
    is_bent = high > 8 * middle_top
    kind: Kind = "knee" if is_bent else "linear"
    x, y = plot_area(low_x=0, high_x=len(bins), low_y=0.0, high_y=high, kind_y=kind, knee=middle_top)
    parts = [axes(x, y, *axis_titles, show_y=lambda v: f"{100 * v:.3g}\u00a0%", ticks_x=())]
    if floor is not None:
        low, high = y(floor.interval.low), y(floor.interval.high)
        corners = [(x.start, low), (x.end, low), (x.end, high), (x.start, high)]
        parts.append(path(corners, "area floor", is_closed=True))
        parts.append(path([(x.start, y(floor.value or 0.0)), (x.end, y(floor.value or 0.0))], "line floor dashes"))
    for at, each in enumerate(bins):
        middle = x(at + 0.5)
        parts.append(label(middle, y.start + 18, _range(each.low, each.high), "tick middle"))
        pair = ((each.divergent, "any", "dot", -6), (each.real, "real", "diamond", 6))
        for share, class_, shape, aside in pair if has_ties else [(each.divergent, "any", "dot", 0)]:
            parts.append(whisker(middle + aside, y(share.interval.low), y(share.interval.high), class_))
            told_here = f"{_range(each.low, each.high)}, {share.name}: {told(share)}"
            parts.append(mark(shape, middle + aside, y(share.value or 0.0), class_, told_here))
    keys = [Key(class_="any", label="all differences" if has_ties else bins[0].real.name, kind="dot")]
    if has_ties:
        keys.append(Key(class_="real", label=bins[0].real.name, kind="diamond"))
    if floor is not None:
        keys.append(Key(class_="floor", label="noise floor: baseline asked again", kind="area"))
    return replace(
        picture,
        description=f"Shares with intervals for {len(bins)} ranges: {axis_titles[1]} by {axis_titles[0]}.",
        parts=parts,
        keys=keys,
        note=picture.note + (f" The axis is logarithmic above {percent(middle_top)}." if is_bent else ""),
        numbers=table(
            (heads[1], heads[0], "All differences", "Interval", bins[0].real.name.capitalize(), "Interval"),
            [
                (
                    _range(b.low, b.high), b.divergent.total, percent(b.divergent.value, 2), interval(b.divergent),
                    percent(b.real.value, 2), interval(b.real),
                )
                for b in bins
            ],
            caption=f"{axis_titles[1].capitalize()}, by {axis_titles[0]}",
        ),
    )  # fmt: skip


def _range(low: int, high: int) -> str:
    return _brief(low) if low == high else f"{_brief(low)}\u2013{_brief(high)}"


def _brief(value: int) -> str:
    return f"{value:,}" if value < 10_000 else f"{value / 1000:.3g}k" if value < 1_000_000 else f"{value / 1e6:.3g}M"
