"""Flags that several commands share, and what the words of a flag may be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from ppd_acc.ask.access import Terms
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags
from ppd_acc.cli.settings import ENDPOINTS, RANGES
from ppd_acc.outcome import Mistake

SIDES = ("baseline", "target")
NODES = ("prefill_node", "decode_node")
ALPHA = 0.05


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return number


def between(low: float, high: float) -> Callable[[str], float]:
    """A number from low to high; NaN is none."""

    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} must be from {low:g} to {high:g}")
        return value

    return number


def number_of(key: str) -> Callable[[str], float]:
    """A number in the range that the file's key has."""
    return between(*RANGES[key])


def whole_number_of(key: str) -> Callable[[str], int]:
    """A whole number in the range that the file's key has."""
    low, high = RANGES[key]

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} must be from {low} to {high}")
        return value

    return number


def prompt_text(text: str) -> str:
    """A prompt as an argument: JSON in UTF-8 has no lone surrogates, which is how bytes that are not UTF-8 arrive."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"character {error.start} is not UTF-8: {text!a:.80}") from None
    return text


def asked_prompt(given: Given) -> str:
    """Raises Mistake where there is none."""
    if given.flag("prompt") is None:
        raise Mistake("--prompt is missing; give the text that both engines are asked")
    return str(given.flag("prompt"))


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling (greedy and seeded unless told otherwise)")
    group.add_argument("--profile", metavar="NAME", help="named settings: greedy, stochastic or one of the file's")
    group.add_argument("--temperature", type=number_of("temperature"), metavar="F", help="0 is greedy (default 0)")
    group.add_argument("--top-p", type=number_of("top_p"), metavar="F", help="nucleus sampling (default 1)")
    group.add_argument("--seed", type=whole_number_of("seed"), metavar="N", help="default 42")
    group.add_argument(
        "--max-tokens", type=whole_number_of("max_tokens"), metavar="N", help="length limit of an answer (default 64)"
    )
    group.add_argument("--top-k", type=whole_number_of("top_k"), metavar="N", help="logprobs per token (default 5)")


def add_access_flags(parser: argparse.ArgumentParser, *, has_target: bool = False) -> None:
    """`has_target`: there are engines beside the baseline, which may have another key."""
    group = parser.add_argument_group("engines")
    group.add_argument("--model", metavar="NAME", help="default: the first that the engine lists")
    group.add_argument("--api-key", metavar="KEY", help="default: PPD_ACC_API_KEY, else XPYD_ACC_API_KEY")
    if has_target:
        group.add_argument(
            "--target-api-key", metavar="KEY",
            help="of all engines but the baseline (default: PPD_ACC_TARGET_API_KEY, else --api-key)",
        )  # fmt: skip
    group.add_argument("--header", action="append", metavar="'NAME: VALUE'", help="sent with every request, repeatable")
    group.add_argument("--endpoint", choices=ENDPOINTS, help="API that is asked (default chat)")
    group.add_argument("--timeout", type=number_of("timeout"), metavar="S", help="of one answer (default 120)")
    group.add_argument(
        "--retries", type=whole_number_of("retries"), metavar="N", help="attempts after the first (default 3)"
    )
    group.add_argument(
        "--retry-delay", type=number_of("retry_delay"), metavar="S", help="doubled every time (default 0.5)"
    )
    group.add_argument(
        "--concurrency", type=whole_number_of("concurrency"), metavar="N", help="requests at once, per engine (8)"
    )


def add_pair_flags(parser: argparse.ArgumentParser) -> None:
    """`--baseline` and `--target`; whether they are needed is `urls_of`'s."""
    parser.add_argument("--baseline", metavar="URL", help="the unsplit engine")
    parser.add_argument("--target", metavar="URL", help="what is held against it")


def add_noise_flag(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--noise-floor", type=whole_number_of("noise_floor"), metavar="N",
        help=f"answers that the baseline gives twice and scores itself, never cached; 0: none (default {default})",
    )  # fmt: skip


def confidence_flag(help_text: str | None = None) -> Any:
    return flag(
        "--confidence-level", type=between(0.5, 0.999999), default=0.95, metavar="F", help=help_text
    )  # fmt: skip


def alpha_flag() -> Any:
    return flag(type=between(1e-9, 0.5), default=ALPHA, metavar="P", help=f"significance level (default {ALPHA})")


def sampling_flags() -> Any:
    return flags(add_sampling_flags, Given.sampling)


def access_flags(*, has_target: bool = False) -> Any:
    return flags(partial(add_access_flags, has_target=has_target), Given.access)


def pair_flags() -> Any:
    """The URLs by side. Both are needed."""
    return flags(add_pair_flags, urls_of)


def urls_of(given: Given) -> dict[str, str]:
    """Raises Mistake where one is missing."""
    return {side: given.needed(side) for side in SIDES}


def node_flags(prefill_help: str, decode_help: str) -> Any:
    """`--prefill-node` and `--decode-node`: the URLs of those that are given, by side."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--prefill-node", metavar="URL", help=prefill_help)
        parser.add_argument("--decode-node", metavar="URL", help=decode_help)

    return flags(add, lambda given: {side: url for side in NODES if (url := given.url(side)) is not None})


def terms_flags(noise_answers: int) -> Any:
    """All that `Terms` has, of a run with a baseline and others; last, behind a command's own flags."""
    return flags(partial(add_terms_flags, noise_answers), partial(terms_of, noise_answers))


def add_terms_flags(noise_answers: int, parser: argparse.ArgumentParser) -> None:
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_noise_flag(parser, noise_answers)


def terms_of(noise_answers: int, given: Given) -> Terms:
    """Raises Mistake and ConfigError."""
    return Terms(
        sampling=given.sampling(), access=given.access(), noise_answers=given.option("noise_floor", noise_answers)
    )
