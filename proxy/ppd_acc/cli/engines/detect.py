"""detect: what is behind a URL - an unsplit engine, a prefill or decode engine, a ppd-proxy, another router?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import RenderableType
from rich.table import Table

from ppd_acc.ask.access import Access
from ppd_acc.ask.detection import Detection, detect
from ppd_acc.ask.engines import EngineTrouble, engines
from ppd_acc.cli.engines.healthcheck import quick_access, urls_of
from ppd_acc.cli.flags import add_access_flags
from ppd_acc.cli.options import flag, flags, several
from ppd_acc.outcome import Exit, Result
from ppd_acc.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Sequence[str] = flag(
        "urls", nargs="*", metavar="URL", help="what to look at, as many as there are", read=urls_of
    )
    url: Sequence[str] = several("URL", "the same, repeatable")
    ask: bool = flag(
        action="store_true",
        help="also ask for one token, with the offer that another engine decodes on: a NIXL engine holds the prompt's"
        " KV until its lease ends, a stock P2pNccl engine ends",
    )  # fmt: skip
    access: Access = flags(add_access_flags, quick_access)


async def run(options: Options, _: Surroundings) -> Result:
    async with engines(options.access, *options.urls) as asked:
        looks = (detect(engine, has_leave=options.ask) for engine in asked)
        answers = await asyncio.gather(*looks, return_exceptions=True)
    known = [each for each in answers if isinstance(each, Detection)]
    failures = {}
    for url, each in zip(options.urls, answers, strict=True):
        if isinstance(each, EngineTrouble):
            failures[url] = str(each)
        elif isinstance(each, BaseException):
            raise each
    lines: list[RenderableType] = []
    for each in known:
        lines += [f"{each.url}: {each.statement}", _table(each)]
    lines += [f"{url}: unreachable: {reason}" for url, reason in failures.items()]
    data = {"endpoints": [asdict(each) for each in known], "failures": failures}
    return Result(exit=Exit.INFRASTRUCTURE if failures else Exit.PASS, data=data, view=tuple(lines))


def _table(detection: Detection) -> Table:
    table = Table("asked", "told", "a sign of")
    for sign in detection.signs:
        table.add_row(sign.source, sign.told, sign.says or "-")
    return table
