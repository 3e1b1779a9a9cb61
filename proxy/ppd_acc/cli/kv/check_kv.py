"""check-kv: is the KV of one dump that of another, up to rounding, and if not, what happened to it?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppd_acc.cli.flags import SIDES, between, not_negative, positive
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flags, value
from ppd_acc.kv.blend import blend_data, blend_view
from ppd_acc.kv.check import KvReport, check_dumps
from ppd_acc.kv.check import Options as Checking
from ppd_acc.kv.files import LAYOUTS, KvFileError
from ppd_acc.kv.plots import check_plot, draw_heat_map, draw_histogram
from ppd_acc.kv.report import data_of, view_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress
from ppd_accuracy.kv.blend import CHECK_LAYER, RECOMPUTE_RATIO, Blend, blend
from ppd_accuracy.kv.blend_advice import Recommendation, recommend
from ppd_accuracy.kv.elements import ElementType, element_type
from ppd_accuracy.kv.figures import AXES
from ppd_accuracy.kv.timings import Timings, read_timings
from ppd_accuracy.kv.tolerance import Tolerance

_BLEND_FLAGS = ("cacheblend", "recomp_ratio", "check_layers", "suffix_len", "timings", "quality_drop")


def _add_dumps(parser: argparse.ArgumentParser) -> None:
    for side, letter in (("baseline", "a"), ("target", "b")):
        group = parser.add_mutually_exclusive_group(required=True)
        group.add_argument(f"--kv-dump-{letter}", dest=side, metavar="FILE", help=f"the {side}: .npz or .safetensors")
        group.add_argument(f"--{side}", dest=side, metavar="FILE", help="the same")


def _dumps(given: Given) -> tuple[Path, ...]:
    return tuple(given.directory / given.flag(side) for side in SIDES)


def _add_checking(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("tolerance (by default that of the element type's rounding)")
    limits.add_argument("--max-abs-threshold", type=between(0, float("inf")), metavar="F", help="largest difference")
    limits.add_argument("--cosine-threshold", type=between(-1, 1), metavar="F", help="smallest cosine")
    limits.add_argument(
        "--dtype", type=_dtype, metavar="TYPE",
        help="fp64, fp32, fp16, bf16, fp8_e4m3 or fp8_e5m2: what raw integers are, and whose rounding is allowed",
    )  # fmt: skip
    parser.add_argument(
        "--layout", choices=LAYOUTS, default=LAYOUTS[0],
        help="axes of arrays with three: heads-tokens for (heads, tokens, channels), the default, or tokens-heads for"
        " (tokens, heads, channels)",
    )  # fmt: skip
    parser.add_argument(
        "--block-size", type=positive, metavar="N", help="tokens per block (default: the dumps', or 16)"
    )
    parser.add_argument(
        "--per", action="append", choices=AXES, default=None, help="also figures per head, block or token; repeatable"
    )


def _checking(given: Given) -> Checking:
    return Checking(
        dtype=given.flag("dtype"),
        limits=Tolerance(
            max_abs=given.option("max_abs_threshold", table="kv"), cosine=given.option("cosine_threshold", table="kv")
        ),
        block_size=given.flag("block_size"),
        details=tuple(dict.fromkeys(given.flag("per") or ())),
        has_deviations=_has_view(given),
        layout=given.flag("layout"),
    )


def _plot(given: Given) -> Path | None:
    path = given.path("plot")
    if path is not None:
        check_plot(path)
    return path


def _has_view(given: Given) -> bool:
    return any(given.flag(name) is not None for name in _BLEND_FLAGS)


def _add_blend(parser: argparse.ArgumentParser) -> None:
    view = parser.add_argument_group("CacheBlend view (any of these switches it on)")
    view.add_argument("--cacheblend", action="store_true", default=None, help="with the values below as they are")
    view.add_argument("--recomp-ratio", type=between(0, 1), metavar="F", help="share of tokens (default 0.16)")
    view.add_argument(
        "--check-layers", action="append", metavar="N[,N]", help="layers that choose the tokens (default 1)"
    )
    view.add_argument("--suffix-len", type=not_negative, metavar="N", help="tokens of the question (default 0)")
    view.add_argument("--timings", metavar="FILE", help="JSON: t1 to t5, or kv_load, selection, partial_recompute and"
                      " generation, in seconds; full_prefill too, if known")  # fmt: skip
    view.add_argument("--quality-drop", type=between(-1, 1), metavar="F", help="measured loss of a score from 0 to 1")


def _dtype(text: str) -> ElementType:
    try:
        return element_type(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendView:
    """`check_layers` choose the tokens; none: the default one, or the first that there is."""

    ratio: float
    check_layers: list[int]
    suffix_len: int
    timings: Timings | None
    quality_drop: float | None


def _blend_view(given: Given) -> BlendView | None:
    timings, ratio = given.path("timings"), given.flag("recomp_ratio")
    view = BlendView(
        timings=_timings(timings) if timings is not None else None,
        check_layers=_layers(given.flag("check_layers") or ()),
        ratio=RECOMPUTE_RATIO if ratio is None else ratio,
        suffix_len=given.flag("suffix_len") or 0,
        quality_drop=given.flag("quality_drop"),
    )
    return view if _has_view(given) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    dumps: tuple[Path, Path] = flags(_add_dumps, _dumps)
    checking: Checking = flags(_add_checking, _checking)
    plot: Path | None = value("FILE", "heat map, or with the CacheBlend view its histogram (.png, .svg)", read=_plot)
    blend: BlendView | None = flags(_add_blend, _blend_view)


def run(options: Options, surroundings: Surroundings) -> Result:
    report = check(options, surroundings)
    data, view, notes = data_of(report), view_of(report), list(report.notes)
    if options.blend is not None:
        timings = options.blend.timings
        blended, advice, more = _blend(report, options.blend)
        data["cacheblend"] = blend_data(blended, advice, timings)
        view = (*view[:-1], *blend_view(blended, advice, timings), view[-1])
        notes += more
        if options.plot is not None:
            draw_histogram(options.plot, blended)
    elif options.plot is not None:
        draw_heat_map(options.plot, data["heat_map"])
    return Result(exit=Exit.PASS if report.is_match else Exit.DIFFERENT, data=data, view=view, notes=tuple(notes))


def check(options: Options, surroundings: Surroundings) -> KvReport:
    """Raises Mistake where a file is no dump, or holds nothing."""
    progress: list[Progress] = []

    def tell(done: int, total: int) -> None:
        if not progress:
            progress.append(Progress(surroundings.errors, "arrays", total))
        progress[0](done)

    try:
        report = check_dumps(*options.dumps, options.checking, tell)
    except KvFileError as error:
        raise Mistake(str(error)) from None
    if not report.checked:
        raise Mistake(f"{options.dumps[0]} and {options.dumps[1]} hold no arrays; there is nothing to compare")
    return report


def _layers(texts: Sequence[str]) -> list[int]:
    """Whole numbers, separated by commas or flag by flag; brackets may stand round them. Raises Mistake."""
    words = [word.strip() for text in texts for word in text.strip("[] ").split(",")]
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise Mistake(f"--check-layers {wrong[0]!r} is no layer; give numbers from 0, such as 1 or 0,1,2")
    return list(dict.fromkeys(int(word) for word in words))


def _timings(path: Path) -> Timings:
    try:
        return read_timings(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise Mistake(f"--timings {path}: {error}") from None


def _blend(report: KvReport, options: BlendView) -> tuple[Blend, Recommendation, list[str]]:
    deviations, notes = report.deviations()
    if not deviations:
        raise Mistake("the CacheBlend view needs V of at least one layer on both sides, named like layer_0_value")
    layers = options.check_layers or [CHECK_LAYER if CHECK_LAYER in deviations else next(iter(deviations))]
    try:
        view = blend(deviations, ratio=options.ratio, check_layers=layers, suffix_len=options.suffix_len)
    except ValueError as error:
        raise Mistake(f"CacheBlend view: {error}") from None
    return view, recommend(view, timings=options.timings, quality_drop=options.quality_drop), notes
