"""dataset-stats: how many prompts a dataset has, how long they are, and which of them are there twice."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble, engines
from ppd_acc.ask.question import Question
from ppd_acc.cli.batch.batch_compare import template_of
from ppd_acc.cli.flags import access_flags, positive
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import derived, flag, flags
from ppd_acc.data.datasets import Loaded, Row, read_dataset
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress, counted
from ppd_wire.requests.asking import COUNTED_PARTS, one_token

_BARS = 40
_BINS = 10
_BATCH = 256
_ONE_TOKEN = Sampling(temperature=0.0, top_p=1.0, seed=42, max_tokens=1, top_k=1)


def _path(given: Given) -> str:
    file, dataset = given.flag("file"), given.flag("dataset")
    if (file is None) == (dataset is None):
        raise Mistake("the dataset is missing or given twice; give FILE or --dataset FILE")
    return str(dataset if dataset is not None else file)


def _loaded(given: Given) -> Loaded:
    return read_dataset(given.directory / _path(given), template=template_of(given), limit=given.flag("limit"))


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="the dataset (or --dataset)")
    parser.add_argument("--dataset", metavar="FILE", help=".jsonl, .json (an array) or .csv (with a header)")
    parser.add_argument("--template", metavar="FILE", help="a text with {field} in it, filled from each row")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    path: str = flags(_add_dataset, _path)
    loaded: Loaded = derived(_loaded)
    url: str | None = flag(
        metavar="URL", help="the engine whose tokenizer counts tokens (default: words)",
        read=lambda given: given.url("url"),
    )  # fmt: skip
    access: Access = access_flags()


async def run(options: Options, surroundings: Surroundings) -> Result:
    loaded = options.loaded
    texts = [_text(row) for row in loaded.rows]
    notes: list[str] = []
    if options.url is not None:
        unit, lengths, note = await _tokens(options.url, options.access, loaded.rows, surroundings)
        notes += [note] if note else []
    elif all(_ids(row) is not None for row in loaded.rows):
        unit, lengths = "tokens", [len(_ids(row) or ()) for row in loaded.rows]
    else:
        unit, lengths = "words", [len(text.split()) for text in texts]
        notes.append("lengths are in words; --url URL counts tokens with an engine's tokenizer")
    return _result(options.path, loaded, texts, unit, lengths, notes)


def _result(
    path: str, loaded: Loaded, texts: Sequence[str], unit: str, lengths: Sequence[int], notes: Sequence[str]
) -> Result:  # fmt: skip
    copies = duplicates(loaded.rows)
    characters = [len(text) for text in texts]
    data = {
        "path": path,
        "sha256": loaded.sha256,
        "samples": len(loaded.rows),
        "unique_prompts": len(loaded.rows) - sum(len(each) - 1 for each in copies),
        "duplicates": copies,
        "with_expected": sum(row.expected is not None for row in loaded.rows),
        "conversations": sum(row.question.messages is not None for row in loaded.rows),
        "unit": unit,
        "lengths": figures(lengths),
        "characters": figures(characters),
        "histogram": histogram(lengths),
    }
    table = Table("", "sum", "min", "mean", "median", "p95", "p99", "max")
    for name in ("lengths", "characters"):
        told: Mapping[str, float] = data[name]  # type: ignore[assignment]
        shown = (f"{told[key]:g}" for key in ("sum", "min", "mean", "median", "p95", "p99", "max"))
        table.add_row(unit if name == "lengths" else name, *shown)
    head = f"{path}: {counted(len(loaded.rows), 'prompt')}, {data['unique_prompts']} different ones"
    view: list[RenderableType] = [Text(head), table, _bars(histogram(lengths), unit)]
    if copies:
        view.append(Text("the same prompt: " + "; ".join(", ".join(each[:5]) for each in copies[:10])))
    return Result(exit=Exit.PASS, data=data, view=tuple(view), notes=tuple(notes))


def duplicates(rows: Sequence[Row]) -> list[list[str]]:
    """Ids of rows that ask the same, those with more copies first."""
    groups: dict[bytes, list[str]] = {}
    for row in rows:
        asked = msgspec.msgpack.encode([row.question.messages, row.question.prompt, row.question.extra])
        groups.setdefault(asked, []).append(row.sample_id)
    return sorted((each for each in groups.values() if len(each) > 1), key=lambda each: -len(each))


def figures(values: Sequence[int]) -> dict[str, float]:
    """Sum, mean and quantiles (linear interpolation)."""
    array = np.array(values, dtype=float)
    shares = (("min", 0.0), ("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    told = {name: round(float(np.quantile(array, share)), 3) for name, share in shares}
    return {"sum": float(array.sum()), "mean": round(float(array.mean()), 3), **told}


def histogram(values: Sequence[int]) -> list[dict[str, int]]:
    """At most ten bins of whole numbers, `low` to `high` inclusive."""
    low, high = min(values), max(values)
    width = -(-(high - low + 1) // _BINS)
    starts = range(low, high + 1, width)
    counts = [0] * len(starts)
    for value in values:
        counts[(value - low) // width] += 1
    return [
        {"low": start, "high": min(high, start + width - 1), "samples": count}
        for start, count in zip(starts, counts, strict=True)
    ]


def _bars(bins: Sequence[Mapping[str, int]], unit: str) -> Table:
    table = Table(unit, "samples", "")
    most = max(each["samples"] for each in bins)
    for each in bins:
        table.add_row(_range(each), str(each["samples"]), "#" * round(_BARS * each["samples"] / most))
    return table


def _range(each: Mapping[str, int]) -> str:
    return str(each["low"]) if each["low"] == each["high"] else f"{each['low']} to {each['high']}"


def _ids(row: Row) -> Sequence[int] | None:
    prompt = row.question.prompt
    return prompt if prompt is not None and not isinstance(prompt, str) else None


def _text(row: Row) -> str:
    """All that is said: a conversation's contents, one after the other."""
    if row.question.messages is None:
        return row.question.text
    contents = (each.get("content") for each in row.question.messages)
    return "\n".join(
        each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in contents if each is not None
    )


async def _tokens(
    url: str, access: Access, rows: Sequence[Row], surroundings: Surroundings
) -> tuple[str, list[int], str | None]:  # fmt: skip
    """Prompt tokens as the engine counts them, the chat template included. By /tokenize, else by asking for a token."""
    progress = Progress(surroundings.errors, "counting tokens", len(rows))
    lengths: list[int] = []
    note = None
    async with engines(access, url) as (engine,):
        counter = _Counter(engine, access.endpoint)
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            lengths += await asyncio.gather(*(counter.count(row.question) for row in batch))
            progress(len(lengths))
        if not counter.has_tokenize:
            note = f"{engine.url} has no /tokenize; tokens are those that it counted for one token of answer each"
    return "tokens", lengths, note


class _Counter:
    """Counts prompt tokens. `has_tokenize` turns False when the engine turns out to have no such endpoint."""

    def __init__(self, engine: Engine, endpoint: str) -> None:
        self.has_tokenize = True
        self._engine = engine
        self._endpoint = endpoint

    async def count(self, question: Question) -> int:
        """Raises Trouble."""
        if question.prompt is not None and not isinstance(question.prompt, str):
            return len(question.prompt)
        if self.has_tokenize:
            try:
                return await self._tokenized(question)
            except EngineTrouble as trouble:
                if trouble.reason not in ("status_404", "status_405", "status_501"):
                    raise
                self.has_tokenize = False
        asked = Question(messages=question.messages, prompt=question.prompt, extra=one_token(question.extra or {}))
        told = (await self._engine.ask(asked, _ONE_TOKEN)).prompt_tokens
        if told is None:
            raise Trouble(f"{self._engine.url}: it does not tell the number of prompt tokens")
        return told

    async def _tokenized(self, question: Question) -> int:
        _, body = question.body(self._endpoint, await self._engine.model(), _ONE_TOKEN)
        told = await self._engine.post("/tokenize", {name: body[name] for name in COUNTED_PARTS if name in body})
        count = told.get("count") if isinstance(told, dict) else None
        if not isinstance(count, int):
            raise Trouble(f"{self._engine.url}/tokenize: no count in its answer")
        return count
