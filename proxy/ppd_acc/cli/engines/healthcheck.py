"""healthcheck: are the engines there, what can they do, and are they comparable?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import RenderableType
from rich.table import Table

from ppd_acc.ask.access import Access
from ppd_acc.ask.engines import engines
from ppd_acc.ask.health import DEPTH, Health, check_health, differences
from ppd_acc.cli.flags import SIDES, add_access_flags, whole_number_of
from ppd_acc.cli.given import Given, url_of
from ppd_acc.cli.options import flag, flags, several, value
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings

_TIMEOUT_S = 30.0


def urls_of(given: Given) -> list[str]:
    """Every URL once, in the order given. Raises Mistake where there is none."""
    urls = [*(given.flag("urls") or ()), *(given.flag("url") or ())]
    if not urls:
        urls = [url for side in SIDES if (url := given.settings.get("defaults", side)) is not None]
    if not urls:
        raise Mistake("no URL; give one such as http://engine:8000, or [defaults] baseline and target in the file")
    return list(dict.fromkeys(url_of("URL", url) for url in urls))


def quick_access(given: Given) -> Access:
    """Impatient unless told otherwise: an engine that answers the second time is not healthy."""
    timeout_s = float(given.option("timeout", _TIMEOUT_S))
    return replace(given.access(), timeout_s=timeout_s, retries=given.option("retries", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Sequence[str] = flag(
        "urls", nargs="*", metavar="URL", help="engines or proxies, as many as there are", read=urls_of
    )
    url: Sequence[str] = several(
        "URL", "the same, repeatable; without any: [defaults] baseline and target. Each generates a few tokens: a stock"
        " P2pNccl engine ends on a request without a tag",
    )  # fmt: skip
    top_k: int = value("N", "logprobs per token asked for", whole_number_of("top_k"), DEPTH)
    access: Access = flags(add_access_flags, quick_access)


async def run(options: Options, _: Surroundings) -> Result:
    async with engines(options.access, *options.urls) as asked:
        healths = await asyncio.gather(*(check_health(engine, depth=options.top_k) for engine in asked))
    return _result(healths)


def _result(healths: list[Health]) -> Result:
    healthy = [health for health in healths if health.is_healthy]
    different, notes = differences(healthy)
    code = Exit.PASS
    if len(healthy) < len(healths):
        code = Exit.INFRASTRUCTURE
    elif different:
        code = Exit.DIFFERENT
    lines: list[RenderableType] = [health_table(healths)]
    lines += [f"{health.url}: {health.error}" for health in healths if health.error is not None]
    lines += [f"different: {sentence}" for sentence in different]
    notes += [f"{health.url}: {sentence}" for health in healths for sentence in health.missing]
    data = {"endpoints": [health.data() for health in healths], "differences": different}
    return Result(exit=code, data=data, view=tuple(lines), notes=tuple(notes))


def health_table(healths: Sequence[Health]) -> Table:
    """One row per engine."""
    table = Table("URL", "state", "model", "max len", "version", "logprobs", "token ids", "prompt logprobs",
                  "tokenizer", "latency")  # fmt: skip
    for each in healths:
        state = "healthy" if each.is_healthy else "unhealthy" if each.is_reachable else "unreachable"
        table.add_row(
            each.url, state, _told(each.model), _told(each.max_model_len), _told(each.version), _told(each.logprobs),
            _told(each.has_token_ids), _told(each.has_prompt_logprobs), _told(each.tokenizer),
            "-" if each.latency_ms is None else f"{each.latency_ms:.1f} ms / {each.tokens} tokens",
        )  # fmt: skip
    return table


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
