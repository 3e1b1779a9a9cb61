"""check-kv: is the KV of one dump that of another, up to rounding, and if not, what happened to it?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import between, not_negative, option, positive
from ppd_acc.kv.blend import blend_data, blend_view
from ppd_acc.kv.check import KvReport, Options, check_dumps
from ppd_acc.kv.files import LAYOUTS, KvFileError
from ppd_acc.kv.plots import check_plot, draw_heat_map, draw_histogram
from ppd_acc.kv.report import data_of, view_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.views import Progress
from ppd_accuracy.kv.blend import CHECK_LAYER, RECOMPUTE_RATIO, Blend, blend
from ppd_accuracy.kv.blend_advice import Recommendation, recommend
from ppd_accuracy.kv.elements import ElementType, element_type
from ppd_accuracy.kv.figures import AXES
from ppd_accuracy.kv.timings import Timings, read_timings
from ppd_accuracy.kv.tolerance import Limits

_BLEND_FLAGS = ("cacheblend", "recomp_ratio", "check_layers", "suffix_len", "timings", "quality_drop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for side, letter in (("baseline", "a"), ("target", "b")):
        group = parser.add_mutually_exclusive_group(required=True)
        group.add_argument(f"--kv-dump-{letter}", dest=side, metavar="FILE", help=f"the {side}: .npz or .safetensors")
        group.add_argument(f"--{side}", dest=side, metavar="FILE", help="the same")
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
    parser.add_argument(
        "--plot", metavar="FILE", help="heat map, or with the CacheBlend view its histogram (.png, .svg)"
    )
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


def run(args: argparse.Namespace, context: Context) -> Result:
    plot = context.directory / args.plot if args.plot is not None else None
    if plot is not None:
        check_plot(plot)
    has_view = any(getattr(args, name) is not None for name in _BLEND_FLAGS)
    timings = _timings(context.directory / args.timings) if args.timings is not None else None
    check_layers = _layers(args.check_layers)
    options = Options(
        dtype=args.dtype,
        limits=Limits(
            max_abs=option(args, context.settings, "max_abs_threshold", table="kv"),
            cosine=option(args, context.settings, "cosine_threshold", table="kv"),
        ),
        block_size=args.block_size,
        details=tuple(dict.fromkeys(args.per or ())),
        has_deviations=has_view,
        layout=args.layout,
    )
    report = check(context.directory / args.baseline, context.directory / args.target, options, context)
    data, view, notes = data_of(report), view_of(report), list(report.notes)
    if has_view:
        blended, advice, more = _blend(report, args, check_layers, timings)
        data["cacheblend"] = blend_data(blended, advice, timings)
        view = (*view[:-1], *blend_view(blended, advice, timings), view[-1])
        notes += more
        if plot is not None:
            draw_histogram(plot, blended)
    elif plot is not None:
        draw_heat_map(plot, data["heat_map"])
    return result_of(report, data, view, tuple(notes))


def check(baseline: Path, target: Path, options: Options, context: Context) -> KvReport:
    """Raises Mistake where a file is no dump, or holds nothing."""
    progress: list[Progress] = []

    def tell(done: int, total: int) -> None:
        if not progress:
            progress.append(Progress(context.errors, "arrays", total))
        progress[0](done)

    try:
        report = check_dumps(baseline, target, options, tell)
    except KvFileError as error:
        raise Mistake(str(error)) from None
    if not report.checked:
        raise Mistake(f"{baseline} and {target} hold no arrays; there is nothing to compare")
    return report


def result_of(
    report: KvReport, data: dict[str, Any], view: tuple[RenderableType, ...], notes: tuple[str, ...]
) -> Result:
    return Result(exit=Exit.PASS if report.is_match else Exit.DIFFERENT, data=data, view=view, notes=notes)


def _layers(given: list[str] | None) -> list[int]:
    """Whole numbers, separated by commas or flag by flag; brackets may stand round them. Raises Mistake."""
    words = [word.strip() for text in given or () for word in text.strip("[] ").split(",")]
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise Mistake(f"--check-layers {wrong[0]!r} is no layer; give numbers from 0, such as 1 or 0,1,2")
    return list(dict.fromkeys(int(word) for word in words))


def _timings(path: Path) -> Timings:
    try:
        return read_timings(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise Mistake(f"--timings {path}: {error}") from None


def _blend(
    report: KvReport, args: argparse.Namespace, check_layers: list[int], timings: Timings | None
) -> tuple[Blend, Recommendation, list[str]]:
    deviations, notes = report.deviations()
    if not deviations:
        raise Mistake("the CacheBlend view needs V of at least one layer on both sides, named like layer_0_value")
    if not check_layers:
        check_layers = [CHECK_LAYER if CHECK_LAYER in deviations else next(iter(deviations))]
    try:
        view = blend(
            deviations,
            ratio=RECOMPUTE_RATIO if args.recomp_ratio is None else args.recomp_ratio,
            check_layers=check_layers,
            suffix_len=args.suffix_len or 0,
        )
    except ValueError as error:
        raise Mistake(f"CacheBlend view: {error}") from None
    return view, recommend(view, timings=timings, quality_drop=args.quality_drop), notes


COMMANDS = (Command(name="check-kv", add_arguments=add_arguments, run=run),)
