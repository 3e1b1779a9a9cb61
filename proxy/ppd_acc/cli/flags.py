"""Options that several commands share, and what they and the configuration file come to together.

A flag that is given wins, then the profile, then the file's [defaults], then the built-in value.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from ppd_acc.ask.access import Access, Endpoint, Sampling
from ppd_acc.ask.urls import UNSENDABLE, wrong_in_header, wrong_in_url
from ppd_acc.cli.settings import ENDPOINTS, RANGES, Settings
from ppd_acc.outcome import Mistake

_BUILT_IN: Mapping[str, Any] = MappingProxyType(
    {
        "temperature": 0.0, "top_p": 1.0, "seed": 42, "max_tokens": 64, "top_k": 5, "endpoint": "chat",
        "timeout": 120.0, "retries": 3, "retry_delay": 0.5, "concurrency": 8,
    }
)  # fmt: skip


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


def add_pair_flags(parser: argparse.ArgumentParser, *, has_target: bool = True) -> None:
    """`--baseline` and `--target`; whether they are needed is `urls_of`'s."""
    parser.add_argument("--baseline", metavar="URL", help="the unsplit engine")
    if has_target:
        parser.add_argument("--target", metavar="URL", help="what is held against it")


def add_noise_flag(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--noise-floor", type=whole_number_of("noise_floor"), metavar="N",
        help=f"answers that the baseline gives twice and scores itself, never cached; 0: none (default {default})",
    )  # fmt: skip


def option(
    args: argparse.Namespace, settings: Settings, name: str, default: Any = None, table: str = "defaults"
) -> Any:
    """The flag, else the file's value, else `default`."""
    given = getattr(args, name, None)
    if given is not None:
        return given
    told = settings.get(table, name)
    return default if told is None else told


def sampling_of(args: argparse.Namespace, settings: Settings) -> Sampling:
    """Raises SettingsError for an unknown profile."""
    name = option(args, settings, "profile")
    profile = settings.profile(name) if name is not None else {}

    def value(key: str) -> Any:
        given = getattr(args, key, None)
        if given is not None:
            return given
        if key in profile:
            return profile[key]
        told = settings.get("defaults", key)
        return _BUILT_IN[key] if told is None else told

    return Sampling(
        temperature=float(value("temperature")),
        top_p=float(value("top_p")),
        seed=value("seed"),
        max_tokens=value("max_tokens"),
        top_k=value("top_k"),
        profile=name,
    )


def access_of(args: argparse.Namespace, settings: Settings) -> Access:
    """Raises Mistake for an endpoint that does not exist, and for a header, a key or a model that cannot be sent."""
    name = option(args, settings, "profile")
    profile = settings.profile(name) if name is not None else {}
    endpoint = option(args, settings, "endpoint", _BUILT_IN["endpoint"])
    if endpoint not in ENDPOINTS:
        raise Mistake(f"defaults.endpoint is {endpoint!r}; it must be chat or completions")
    key = option(
        args, settings, "api_key", os.environ.get("PPD_ACC_API_KEY") or os.environ.get("XPYD_ACC_API_KEY")
    )  # fmt: skip
    if key is not None and UNSENDABLE.search(key):
        raise Mistake("--api-key (or api_key, or PPD_ACC_API_KEY) has a control character; it must be one line")
    target_key = option(args, settings, "target_api_key", os.environ.get("PPD_ACC_TARGET_API_KEY"))
    if target_key is not None and UNSENDABLE.search(target_key):
        raise Mistake("--target-api-key (or PPD_ACC_TARGET_API_KEY) has a control character; it must be one line")
    model = option(args, settings, "model", profile.get("model"))
    if model is not None and UNSENDABLE.search(model):
        raise Mistake(f"--model is {model!a}; it must be UTF-8 without control characters")
    return Access(
        model=model,
        api_key=key,
        target_api_key=target_key,
        headers=_headers(args, settings),
        endpoint=cast("Endpoint", endpoint),
        timeout_s=float(option(args, settings, "timeout", _BUILT_IN["timeout"])),
        retries=option(args, settings, "retries", _BUILT_IN["retries"]),
        retry_delay_s=float(option(args, settings, "retry_delay", _BUILT_IN["retry_delay"])),
        concurrency=option(args, settings, "concurrency", _BUILT_IN["concurrency"]),
    )


def needed(args: argparse.Namespace, settings: Settings, name: str) -> str:
    """A URL from the flag or the file. Raises Mistake where neither has it, or where it is no URL."""
    url = option(args, settings, name)
    flag = "--" + name.replace("_", "-")
    if url is None:
        raise Mistake(f"{flag} is missing; give a URL such as http://engine:8000, or [defaults] {name} in the file")
    return url_of(flag, url)


def url_of(flag: str, url: str) -> str:
    """The URL without a trailing slash or /v1. Raises Mistake."""
    wrong = wrong_in_url(url)
    if wrong is not None:
        raise Mistake(f"{flag} is {url!a}: {wrong}; it must be a URL such as http://engine:8000")
    return url.rstrip("/").removesuffix("/v1")


def _headers(args: argparse.Namespace, settings: Settings) -> dict[str, str]:
    found = {str(name): str(value) for name, value in (settings.get("defaults", "headers") or {}).items()}
    for header in getattr(args, "header", None) or ():
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise Mistake(f"--header {name!a}: it must be 'NAME: VALUE'")
        found[name.strip()] = value.strip()
    for name, value in found.items():
        wrong = wrong_in_header(name, value)
        if wrong is not None:
            raise Mistake(wrong)
    return found
