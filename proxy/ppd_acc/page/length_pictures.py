"""How long answers are on both sides, and how they ended."""

from __future__ import annotations

from markupsafe import Markup

from ppd_acc.page.drawing import Key, Picture, axes, label, path, place, plot_area
from ppd_acc.page.markup import element, table
from ppd_acc.page.scales import number, rounded_up
from ppd_acc.page.series import NOT_TOLD, DifferenceBin, Differences, Finishes


def differences_picture(differences: Differences, unit: str) -> Picture:
    """Histogram of target's length minus baseline's, without those of equal length."""
    name, title = "differences", "Difference in answer length"
    total = differences.same + sum(each.count for each in differences.bins)
    if not differences.bins:
        finding = f"All {total:,} answers are equally long on both sides." if total else "No answer was compared."
        return Picture(name=name, title=title, finding=finding)
    bins = differences.bins
    x, y = plot_area(low_x=0, high_x=len(bins), low_y=0, high_y=rounded_up(max(each.count for each in bins)))
    parts = [axes(x, y, f"target \u2212 baseline ({unit})", "answers", ticks_x=())]
    zero = next(at for at, each in enumerate(bins) if each.low <= 0 <= each.high) + 0.5
    every = max(1, len(bins) // 7)
    for at, each in enumerate(bins):
        left, right = x(at) + 1, x(at + 1) - 1
        told_here = f"{_signed_range(each)} {unit}: {each.count} answers, {each.cut} of them cut at the limit"
        parts.append(_bar(left, right, y(0), y(each.count), "bar any", told_here))
        parts.append(_bar(left, right, y(0), y(each.cut), "bar cut", told_here))
        if (at - int(zero)) % every == 0:
            parts.append(label((left + right) / 2, y.start + 18, _signed((each.low + each.high) // 2), "tick middle"))
    parts.append(path([(x(zero), y.start), (x(zero), y.end)], "line floor dashes"))
    cut = sum(each.cut for each in bins)
    keys = [Key(class_="bar any", label="ended by themselves", kind="area")]
    if cut:
        keys.append(Key(class_="bar cut", label="a side was cut at max_tokens", kind="area"))
    return Picture(
        name=name,
        title=title,
        finding=f"{differences.same:,} of {total:,} answers are equally long; over all, the target's are"
        f" {number(abs(differences.mean))} {unit} {'longer' if differences.mean > 0 else 'shorter'} on average.",
        description=f"Histogram of length differences in {len(bins)} bins.",
        parts=parts,
        keys=keys,
        note="Answers of equal length are left out. A cut side would have gone on: its difference is a bound."
        " length-bias tests for bias.",
        numbers=table(
            (f"Difference ({unit})", "Answers", "Cut"),
            [(_signed_range(each), each.count, each.cut) for each in bins if each.count],
            caption="Answers by length difference",
        ),
    )


def _bar(left: float, right: float, bottom: float, top: float, class_: str, told_here: str) -> Markup:
    if bottom - top < 0.05:
        return Markup("")
    return element(
        "rect", element("title", told_here), x=place(left), y=place(top), width=place(right - left),
        height=place(bottom - top), class_=class_,
    )  # fmt: skip


def _signed(value: int) -> str:
    return f"+{value:,}" if value > 0 else f"\u2212{-value:,}" if value < 0 else "0"


def _signed_range(each: DifferenceBin) -> str:
    low, high = each.low, each.high
    return _signed(low) if low == high else f"{_signed(low)} to {_signed(high)}"


def finishes_table(finishes: Finishes) -> Picture:
    """How answers ended, baseline by target."""
    name, title = "finishes", "How answers ended"
    total = sum(finishes.counts.values())
    if not total:
        return Picture(name=name, title=title, finding="No answer was compared.")
    known = sum(count for pair, count in finishes.counts.items() if NOT_TOLD not in pair)
    differing = sum(count for pair, count in finishes.counts.items() if _is_differing(*pair))
    if not known:
        finding = "No engine told why its answers ended, or only one did."
    elif not differing:
        finding = f"All {known:,} pairs ended for the same reason."
    else:
        finding = f"{differing:,} of {known:,} pairs ended for different reasons."
    rows = [
        (
            f"baseline: {mine}",
            *(_count(finishes.counts[mine, theirs], _is_differing(mine, theirs)) for theirs in finishes.reasons),
        )
        for mine in finishes.reasons
    ]
    head = ("", *(f"target: {reason}" for reason in finishes.reasons))
    counts = table(head, rows, caption="Finish reasons: pairs of answers", class_="counts")
    return Picture(name=name, title=title, finding=finding, content=counts, is_wide=True)


def _is_differing(mine: str, theirs: str) -> bool:
    return mine != theirs and NOT_TOLD not in (mine, theirs)


def _count(count: int, is_differing: bool) -> Markup | str:
    return element("strong", f"{count:,}") if count and is_differing else f"{count:,}"
