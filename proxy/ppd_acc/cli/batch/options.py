"""The options of a batch, and what they and the configuration file come to."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppd_acc.ask.cache import DEFAULT_TTL_S
from ppd_acc.batch.gating import Limits
from ppd_acc.batch.options import NOISE_ANSWERS, Options
from ppd_acc.cli.flags import add_noise_flag, between
from ppd_acc.cli.given import Given
from ppd_acc.compare.normalizing import NORMALIZERS, Matching
from ppd_acc.outcome import Mistake
from ppd_acc.reports.formats import FORMATS

_INFINITE = 1e12
_IN_FILE = (("csv", "csv"), ("junit", "junit_path"))
"""Outputs that the configuration file's [batch] may name."""


def add_batch_flags(parser: argparse.ArgumentParser) -> None:
    """Judging, keeping and writing; what is asked of whom is the command's own."""
    _add_judging(parser)
    _add_keeping(parser)
    group = parser.add_argument_group("what is written")
    group.add_argument("--output", metavar="FILE", help="the report, which report, diff, explain and others read")
    group.add_argument("--csv", metavar="FILE", help="a line per sample")
    group.add_argument("--junit", metavar="FILE", help="JUnit XML: real differences fail, errors are errors")
    group.add_argument("--markdown", metavar="FILE", help="a summary for a pull request")
    group.add_argument("--prometheus", metavar="FILE", help="metrics for a textfile collector")
    group.add_argument(
        "--keep-tops", choices=("all", "near", "none"), default="all",
        help="likeliest tokens in the report: of all tokens, near the first difference, none (default all)",
    )  # fmt: skip
    group.add_argument("--no-progress", action="store_true", help="say nothing while it runs")


def _add_judging(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("judging")
    add_noise_flag(parser, NOISE_ANSWERS)
    add = group.add_argument
    add(
        "--fail-threshold", type=between(0, 1), metavar="RATE",
        help="highest share of real differences; without it, or 0, any of them fails",
    )  # fmt: skip
    add("--confidence-level", type=between(0.5, 0.999999), metavar="F", help="of all intervals (default 0.95)")
    add("--confidence", action="store_true", help="changes nothing: intervals are always given")
    add(
        "--max-error-share", type=between(0, 1), default=0.0, metavar="F",
        help="share of samples that may be errors; more end with 3, unless the rest fails already (default 0)",
    )  # fmt: skip
    add("--early-stop", action="store_true", help="stop as soon as a sequential test is sure")
    add(
        "--force", action=argparse.BooleanOptionalAction, default=True,
        help="have the baseline score the whole of answers that differ (default: yes)",
    )  # fmt: skip
    add("--normalize-whitespace", action="store_true", default=None, help="white space makes no difference")
    add("--ignore-case", action="store_true", default=None, help="upper and lower case make no difference")
    add("--numeric-tolerance", type=between(0, _INFINITE), metavar="F", help="numbers may differ by this much")
    add("--normalizer", action="append", choices=NORMALIZERS, help="applied to both texts, repeatable")
    add("--warn-truncated", type=between(0, 1), metavar="F", help="note when more answers than this share are cut")
    for side in ("input", "output"):
        add(f"--{side}-price", type=between(0, _INFINITE), metavar="USD", help=f"per million {side} tokens: tell costs")
    add("--logprob-gap-threshold", type=between(0, _INFINITE), metavar="F", help="means nothing here: --noise-floor")


def _add_keeping(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("asking and keeping")
    add = group.add_argument
    add("--rate-limit", type=between(1e-9, 1e9), metavar="N", help="requests per second, for each engine")
    add("--journal", metavar="FILE", help="where finished samples go (default: OUTPUT.journal, gone when complete)")
    add(
        "--resume", nargs="?", const="", metavar="FILE",
        help="go on with the journal of an interrupted run; samples that were errors are asked again",
    )  # fmt: skip
    add("--checkpoint", metavar="FILE", help="as --journal FILE --resume")
    add("--checkpoint-clear", action="store_true", help="do not resume")
    add("--cache-dir", metavar="DIR", help="keep answers there and use them again (default: off)")
    add("--cache-ttl", type=between(0, _INFINITE), metavar="S", help=f"for so long (default {DEFAULT_TTL_S:g})")
    add("--no-cache", action="store_true", help="not even where the configuration file has a cache_dir")
    add("--no-request-id", action="store_true", help="send no X-Request-Id")
    add("--skip-healthcheck", action="store_true", help="changes nothing: only the model's name is asked for")
    add("--skip-validation", action="store_true", help="changes nothing: an answer that is none is an error")


def options_of(given: Given) -> Options:
    """Raises Mistake."""
    outputs = _outputs(given)
    journal, is_own, is_resumed = _journal(given, outputs)
    cache_dir = None if given.flag("no_cache") else given.option("cache_dir", None, "batch")
    rate = given.option("fail_threshold", None, "batch")
    rate_limit = given.option("rate_limit")
    return Options(
        limits=Limits(
            rate=None if rate is None else float(rate),
            error_share=given.flag("max_error_share"),
            confidence=float(given.option("confidence_level", 0.95, "batch")),
            is_sequential=given.flag("early_stop"),
        ),
        noise_answers=given.option("noise_floor", NOISE_ANSWERS),
        is_forced=given.flag("force"),
        matching=_matching(given),
        tops=given.flag("keep_tops"),
        per_s=None if rate_limit is None else float(rate_limit),
        cache_dir=None if cache_dir is None else given.directory / cache_dir,
        cache_ttl_s=float(given.option("cache_ttl", DEFAULT_TTL_S, "batch")),
        journal=journal,
        is_own_journal=is_own,
        is_resumed=is_resumed,
        outputs=outputs,
        cut_share=given.option("warn_truncated", None, "batch"),
        prices=_prices(given),
        has_progress=not given.flag("no_progress") and not given.flag("quiet"),
        request_name=None if given.flag("no_request_id") else f"ppd-acc-{secrets.token_hex(4)}",
    )


def _prices(given: Given) -> tuple[float, float] | None:
    in_file = given.settings.tables.get("cost", {})
    flags = {side: given.flag(f"{side}_price") for side in ("input", "output")}
    prices = [in_file.get(f"{side}_price_per_m") if price is None else price for side, price in flags.items()]
    return None if prices == [None, None] else (float(prices[0] or 0.0), float(prices[1] or 0.0))


def _outputs(given: Given) -> dict[str, Path]:
    in_file = {flag: given.settings.get("batch", key) for flag, key in _IN_FILE}
    named = {flag: given.flag(flag) or in_file.get(flag) for flag in ("output", *FORMATS)}
    outputs = {flag: given.directory / path for flag, path in named.items() if path is not None}
    for flag, path in outputs.items():
        if not path.absolute().parent.is_dir():
            raise Mistake(f"--{flag} {path}: there is no directory {path.parent}")
        if path.is_dir():
            raise Mistake(f"--{flag} {path}: it is a directory; it must be a file")
    if len(set(outputs.values())) < len(outputs):
        raise Mistake(f"--{', --'.join(outputs)}: two of them name the same file")
    return outputs


def _journal(given: Given, outputs: Mapping[str, Path]) -> tuple[Path | None, bool, bool]:
    """Where it is, whether nobody named it, whether the run goes on."""
    named = [path for name in ("journal", "resume", "checkpoint") if (path := given.flag(name))]
    if len(set(named)) > 1:
        raise Mistake(
            f"--journal, --resume and --checkpoint name {' and '.join(sorted(set(named)))}; one must be enough"
        )
    is_wanted = given.flag("resume") is not None or given.flag("checkpoint") is not None
    is_resumed = is_wanted and not given.flag("checkpoint_clear")
    if named:
        return given.directory / named[0], False, is_resumed
    if "output" in outputs and (outputs["output"].is_file() or not outputs["output"].exists()):
        return outputs["output"].with_name(outputs["output"].name + ".journal"), True, is_resumed
    if is_resumed:
        raise Mistake("--resume: which run? give --resume FILE, --journal FILE or the --output of that run")
    return None, False, False


def _matching(given: Given) -> Matching:
    settings = given.settings
    _, profile = given.profile()

    def value(key: str) -> Any:
        wanted = given.flag(key)
        return wanted if wanted is not None else profile.get(key, settings.get("matching", key))

    tolerance = value("numeric_tolerance")
    normalizers = given.option("normalizer", settings.get("matching", "normalizers") or (), "matching")
    unknown = [each for each in normalizers if each not in NORMALIZERS]
    if unknown:
        raise Mistake(f"matching.normalizers: {unknown[0]!r} is none; there are {', '.join(NORMALIZERS)}")
    return Matching(
        has_whitespace=bool(value("normalize_whitespace")),
        has_case=bool(value("ignore_case")),
        numeric_tolerance=None if tolerance is None else float(tolerance),
        normalizers=tuple(normalizers),
    )
