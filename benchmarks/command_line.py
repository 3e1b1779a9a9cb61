"""What the benchmark commands share: flags, tables, JSON lines, result files, and how they end."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from chat_client import RequestFailed

INTERRUPTED = 130


def add_proxy_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the proxy and the engines' metrics are."""
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:10001", help="the proxy (default %(default)s)")
    add("--model", help="model name (default: the first of /v1/models)")
    add("--api-key", help="key that clients must send")
    add("--admin-key", help="key of the proxy's admin endpoints")
    metrics = "/metrics of a {} engine, repeatable (default: the engines of GET /engines)"
    add("--prefill-metrics", metavar="URL", action="append", default=[], help=metrics.format("prefill"))
    add("--decode-metrics", metavar="URL", action="append", default=[], help=metrics.format("decode"))
    add("--seed", type=int, default=0, help="seed of the prompts' words and of all that is drawn (default 0)")


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the results go besides the tables."""
    add = parser.add_argument
    add("--json", metavar="FILE", default="-", help="the summary as one JSON line (default -: standard output)")
    add("--output", metavar="FILE", type=Path, help="everything that was measured, as JSON")
    add("--plot", metavar="FILE", type=Path, help="a figure, .png or .svg (needs matplotlib)")


def at_least(lowest: int) -> Any:  # noqa: ANN401 - what argparse wants as a type
    """An argparse type: a whole number of at least `lowest`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {lowest}")
        return int(text)

    return parse


def check_plot(parser: argparse.ArgumentParser, path: Path | None) -> None:
    """Ends the program before anything was measured when the figure could not be drawn afterwards."""
    if path is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install 'ppd-proxy[plot]', or -e '.[plot]' in a checkout")
    if path.suffix not in (".png", ".svg"):
        parser.error(f"--plot: {path.name!r} must end in .png or .svg")


def run(main: Coroutine[Any, Any, int]) -> int:
    """The exit status of `main`: 1 and the reason when the proxy failed a request that it needed."""
    try:
        return asyncio.run(main)
    except RequestFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (headers, *rows)) for place in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join([first.strip().ljust(widths[0]), *rest]) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(headers), rule, *map(line, rows)])


def shown(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
    """A number for a table; `-` for what is not known."""
    return "-" if value is None else f"{value * scale:,.{digits}f}"


def write_json_line(where: str, summary: Mapping[str, Any]) -> None:
    text = json.dumps(summary)
    if where == "-":
        print(text)
    else:
        Path(where).write_text(text + "\n", encoding="utf-8")


def write_results(path: Path | None, results: Mapping[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
