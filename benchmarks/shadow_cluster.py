"""A real split cluster with a baseline, every request sampled, and faults that can be switched while it runs."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from cluster import Cluster, ClusterSpec, EngineSpec
from ppd_accuracy.answers.scores import BROKEN, Scores, Statistics, summarize

WORDS = (
    "river mountain cloud engine window paper copper garden winter signal harbor velvet orange silent forest meadow"
    " candle bridge marble thunder pepper lantern anchor violin saddle"
).split()
LIMIT_S = 300.0


def prompt_of(words: int, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(words))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Watched:
    """The cluster, the file that switches faults, and the journal of its samples."""

    cluster: Cluster
    session: aiohttp.ClientSession
    fault_file: Path
    journal: Path
    model: str
    words: tuple[int, int] = (55, 80)
    """Of prompts, from and to: 55 to 80 words are 150 to 250 tokens."""
    _asked: int = 0
    _conversations: list[list[dict[str, str]]] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """From the next request on."""
        self.fault_file.write_text(text)

    async def ask(self, *, temperature: float = 0.0) -> str:
        """One completion of a prompt never asked before; its decision."""
        _, decision = await self._answer("completions", {"prompt": self._new_prompt(), "temperature": temperature})
        return decision

    async def ask_many(self, count: int, concurrency: int, *, temperature: float = 0.0) -> None:
        await _at_once(concurrency, [self.ask(temperature=temperature) for _ in range(count)])

    async def open_conversations(self, count: int, concurrency: int) -> None:
        """First turns of conversations that `later_turns` goes on with; those opened before are forgotten."""
        self._conversations = [[{"role": "user", "content": self._new_prompt()}] for _ in range(count)]
        await _at_once(concurrency, [self._turn(messages) for messages in self._conversations])

    async def later_turns(self, count: int, concurrency: int) -> list[str]:
        """The next turn of the `count` conversations that wait longest; their decisions."""
        chosen, self._conversations = self._conversations[:count], self._conversations[count:]
        self._conversations += chosen
        for messages in chosen:
            self._asked += 1
            messages.append({"role": "user", "content": prompt_of(4, self._asked)})
        return await _at_once(concurrency, [self._turn(messages) for messages in chosen])

    def _new_prompt(self) -> str:
        self._asked += 1
        seed = 1_000_000 + self._asked
        return prompt_of(random.Random(seed).randint(*self.words), seed)

    async def _turn(self, messages: list[dict[str, str]]) -> str:
        choice, decision = await self._answer("chat/completions", {"messages": messages, "temperature": 0})
        messages.append({"role": "assistant", "content": choice["message"]["content"]})
        return decision

    async def _answer(self, path: str, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The first choice and the decision."""
        body = {"model": self.model, "max_tokens": 32, **fields}
        async with self.session.post(f"{self.cluster.proxy_url}/v1/{path}", json=body) as answer:
            told = await answer.json()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {told}")
            return told["choices"][0], str(answer.headers["x-ppd-decision"])

    async def accuracy(self) -> dict[str, Any]:
        async with self.session.get(f"{self.cluster.proxy_url}/accuracy") as answer:
            return dict(await answer.json())

    async def order(self, path: str) -> dict[str, Any]:
        async with self.session.post(f"{self.cluster.proxy_url}/accuracy/{path}") as answer:
            told = dict(await answer.json())
            if answer.status != 200:
                raise RuntimeError(f"{path}: status {answer.status}: {told}")
            return told

    async def noise(self) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.cluster.proxy_url}/accuracy/noise") as answer:
            return list((await answer.json())["noise"])

    async def settled(self) -> dict[str, Any]:
        """Once nothing waits to be checked."""
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        while True:
            told = await self.accuracy()
            if told["waiting"] == 0 and told["checking"] == 0:
                return told
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"samples still wait after {LIMIT_S:.0f} s: {told}")
            await asyncio.sleep(0.1)

    async def calibrated(self, samples: int) -> None:
        """Once so many noise samples were taken of every kind of request that was asked so far."""
        await self.order(f"calibrate?samples={samples}")
        reported = 0.0
        while (told := await self.accuracy())["calibrating"]:
            now = asyncio.get_running_loop().time()
            if now - reported > 10:
                reported = now
                say(f"noise to measure: {told['calibrating']}")
            await asyncio.sleep(0.2)
        await self.settled()

    def categories(self, route: str, first_turn: int, last_turn: int) -> list[tuple[str, int, float]]:
        """Category, prompt tokens and mean difference of a route's judged samples of these turns."""
        with sqlite3.connect(self.journal) as connection:
            query = (
                "SELECT category, prompt_tokens, mean_delta FROM samples"
                " WHERE route = ? AND turn BETWEEN ? AND ? AND category IS NOT NULL"
            )
            return connection.execute(query, (route, first_turn, last_turn)).fetchall()

    def statistics(self, since: int) -> list[Statistics]:
        """Of the samples that were written after the first `since`, in order."""
        columns = "candidate_logprobs, baseline_logprobs, margins, ranks"
        with sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True) as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM samples ORDER BY seq LIMIT -1 OFFSET ?", (since,)
            ).fetchall()
        return [
            BROKEN
            if own is None or not own
            else summarize(
                Scores(
                    candidate=np.frombuffer(own, "<f4").astype(float),
                    baseline=np.frombuffer(theirs, "<f4").astype(float),
                    margin=np.frombuffer(margins, "<f4").astype(float),
                    rank=np.frombuffer(ranks, "<u4").astype(np.int64),
                )
            )
            for own, theirs, margins, ranks in rows
        ]

    async def written(self) -> int:
        """Rows in the journal once it is quiet."""
        await self.settled()
        count = -1
        while True:
            await asyncio.sleep(1.2)  # the journal writes twice a second
            with sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True) as connection:
                found = connection.execute("SELECT count(*) FROM samples").fetchone()[0]
            if found == count:
                return count
            count = found


async def _at_once(concurrency: int, calls: Sequence[Coroutine[Any, Any, str]]) -> list[str]:
    limit = asyncio.Semaphore(concurrency)

    async def one(call: Coroutine[Any, Any, str]) -> str:
        async with limit:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


@contextmanager
def real_cluster(*proxy_args: str, mode: str = "ppd", dtype: str = "bfloat16") -> Iterator[tuple[Cluster, Path, Path]]:
    """1 prefill, 1 decode, 1 baseline with the peaked 4.4 M model; gives cluster, fault file and journal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is running is stopped, too
    with tempfile.TemporaryDirectory(prefix="shadow-") as directory:
        fault, journal = Path(directory) / "fault", Path(directory) / "journal.sqlite"
        fault.write_text("")
        common: dict[str, Any] = {"dtype": dtype, "connector": "ppd", "block_tokens": 32}
        split = {**common, "kv_settings": {"fault": str(fault)}, "load_failure_policy": "recompute"}
        engines = (
            EngineSpec(role="prefill", **split),
            EngineSpec(role="decode", **split),
            EngineSpec(role="aggregated", is_baseline=True, **common),
        )
        spec = ClusterSpec(
            engines=engines,
            mode=mode,
            model="tiny-peaked",
            logs=Path(directory) / "logs",
            proxy_args=("--shadow-rate", "1", "--shadow-queue", "4096", "--journal", str(journal), *proxy_args),
        )
        with Cluster(spec, report=say) as cluster:
            yield cluster, fault, journal


def dump(path: Path, **series: Sequence[list[object]]) -> None:
    """Figures of samples (`row`) by kind, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(series, separators=(",", ":")) + "\n")


def row(statistics: Statistics) -> list[object]:
    """Tokens, mean difference, largest differences, margins, whether a token differs, whether all are numbers."""
    return [
        statistics.tokens,
        round(statistics.mean_delta, 6),
        [round(each, 5) for each in statistics.largest or (0.0,)],
        [round(each, 5) for each in statistics.margins or (0.0,)],
        int(statistics.first_difference is not None),
        int(statistics.is_finite),
    ]


def noise_row(figures: Sequence[Any]) -> list[object]:
    """The same from `GET /accuracy/noise`."""
    tokens, mean, largest, margins = figures
    rounded = [round(each, 5) for each in largest], [round(each, 5) for each in margins]
    return [tokens, round(mean, 6), *rounded, int(margins[0] > 0), 1]


def statistics_of(figures: Sequence[Any]) -> Statistics:
    """A recorded sample, as far as a verdict needs it."""
    tokens, mean, largest, margins, differs, is_finite = figures
    return Statistics(
        tokens=tokens,
        mean_delta=mean,
        max_delta=largest[0],
        max_delta_at=0,
        likelihood_delta=0.0,
        margin=margins[0],
        first_difference=0 if differs else None,
        first_margin=margins[0],
        token_accuracy=1.0 - differs / tokens,
        is_finite=bool(is_finite),
        largest=tuple(largest),
        margins=tuple(margins),
    )
