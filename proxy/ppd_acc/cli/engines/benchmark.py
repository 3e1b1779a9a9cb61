"""benchmark: how fast one engine answers; streamed, after a warm-up, without hits of the prefix cache."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble, engines
from ppd_acc.ask.question import Question
from ppd_acc.ask.streams import Streamed
from ppd_acc.ask.timings import CONFIDENCE, figures, figures_table
from ppd_acc.cli.flags import add_access_flags, between, not_negative, positive, prompt_text, sampling_flags
from ppd_acc.cli.given import Given, url_of
from ppd_acc.cli.options import derived, flag, flags, switch, value
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress
from ppd_wire.requests.asking import without_logprobs

_REQUESTS, _CONCURRENCY, _WARM_UP = 10, 1, 1


@dataclass(slots=True)
class Measurements:
    """What the requests of one run came to; times in ms. `started_at` and `ended_at` are seconds of one clock."""

    total_ms: array[float] = field(default_factory=lambda: array("d"))
    first_ms: array[float] = field(default_factory=lambda: array("d"))
    gaps_ms: array[float] = field(default_factory=lambda: array("d"))
    per_token_ms: array[float] = field(default_factory=lambda: array("d"))
    output_tokens: int = 0
    prompt_tokens: int = 0
    units: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def done(self) -> int:
        return len(self.total_ms) + self.failures.total()

    def add(self, streamed: Streamed) -> None:
        answer, chunks = streamed.answer, streamed.chunks
        assert answer.total_ms is not None
        self.total_ms.append(answer.total_ms)
        self.output_tokens += streamed.tokens
        self.prompt_tokens += answer.prompt_tokens or 0
        self.units.add(_unit(streamed))
        if not chunks:
            return
        self.first_ms.append(chunks[0].at_ms)
        self.gaps_ms.extend(streamed.gaps_ms())
        later = streamed.tokens - max(1, chunks[0].tokens)
        if later > 0:
            self.per_token_ms.append((chunks[-1].at_ms - chunks[0].at_ms) / later)

    def fail(self, trouble: EngineTrouble) -> None:
        self.failures[trouble.reason] += 1
        self.examples.setdefault(trouble.reason, str(trouble))


def _url(given: Given) -> str:
    address, url = given.flag("address"), given.flag("url")
    if (address is None) == (url is None):
        raise Mistake("give one URL such as http://engine:8000, as it is or as --url")
    return url_of("URL" if url is None else "--url", url or address)


def _access(given: Given) -> Access:
    # A request that was tried again has no latency worth the name, so that has to be asked for.
    concurrency = given.option("concurrency", _CONCURRENCY)
    return replace(given.access(), concurrency=concurrency, retries=given.flag("retries") or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    address: str = flag("address", nargs="?", metavar="URL", help="the engine; --url is the same", read=_url)
    url: str | None = value("URL", "the engine")
    requests: int = flag(type=positive, default=_REQUESTS, metavar="N", help=f"default {_REQUESTS}")
    prompt: str = flag(type=prompt_text, default="Hello", metavar="TEXT", help="asked behind a number of its own")
    same_prompt: bool = switch("ask the prompt as it is: hits of the prefix cache are measured")
    rate_limit: float | None = value(
        "F", "requests sent per second, at most", between(1e-6, 1e9), read=lambda given: given.option("rate_limit")
    )
    warmup: int = flag(
        type=not_negative, default=_WARM_UP, metavar="N", help=f"answers first, not counted ({_WARM_UP})"
    )
    ignore_eos: bool = switch("every answer has --max-tokens tokens")
    sampling: Sampling = sampling_flags()
    access: Access = flags(add_access_flags, _access)
    top_k: int | None = derived(lambda given: given.flag("top_k"))


async def run(options: Options, surroundings: Surroundings) -> Result:
    access, sampling, measured = options.access, options.sampling, Measurements()
    async with engines(access, options.address) as (engine,):
        model = await engine.model()
        questions = _questions(options, int(surroundings.wall_clock() * 1000))
        for _ in range(options.warmup):
            await engine.stream(next(questions), sampling)
        progress = Progress(surroundings.errors, "benchmark", options.requests)
        await measure(engine, questions, options, measured, progress)
    settings = {
        "requests": options.requests, "concurrency": access.concurrency, "rate_limit": options.rate_limit,
        "warmup": options.warmup, "prompt": options.prompt, "has_same_prompt": options.same_prompt,
        "max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
        "seed": sampling.seed, "top_k": options.top_k, "endpoint": access.endpoint, "retries": access.retries,
        "timeout_s": access.timeout_s,
    }  # fmt: skip
    return _result({"url": options.address, "model": model, "settings": settings}, measured)


def _questions(options: Options, run_number: int) -> Iterator[Question]:
    """Never twice the same one, in no two runs: what differs stands at the very beginning. Logprobs cost the engine
    time, so they are left out unless --top-k asks for them."""
    extra: dict[str, Any] = {"ignore_eos": True} if options.ignore_eos else {}
    if options.top_k is None:
        extra |= without_logprobs(is_chat=options.access.endpoint == "chat")
    for number in count():
        text = options.prompt if options.same_prompt else f"{run_number:x}-{number}: {options.prompt}"
        yield Question(prompt=text, extra=extra)


async def measure(
    engine: Engine, questions: Iterator[Question], options: Options, measured: Measurements, progress: Progress
) -> None:
    """All requests, so many at once as the access allows; with a rate, request i is not sent before i / rate
    seconds."""
    requests, rate = options.requests, options.rate_limit
    clock = asyncio.get_running_loop().time
    numbers = iter(range(requests))
    measured.started_at = clock()

    async def worker() -> None:
        for number in numbers:
            question = next(questions)
            if rate is not None:
                await asyncio.sleep(measured.started_at + number / rate - clock())
            try:
                measured.add(await engine.stream(question, options.sampling))
            except EngineTrouble as trouble:
                measured.fail(trouble)
            progress(measured.done)

    await asyncio.gather(*(worker() for _ in range(min(options.access.concurrency, requests))))
    measured.ended_at = clock()


def _unit(streamed: Streamed) -> str:
    """What `Streamed.tokens` counts."""
    if sum(chunk.tokens for chunk in streamed.chunks):
        return "tokens"
    return "tokens of the usage" if streamed.counted_tokens else "chunks"


def _result(head: dict[str, Any], measured: Measurements) -> Result:
    completed, failed = len(measured.total_ms), measured.failures.total()
    wall_s = measured.ended_at - measured.started_at
    latencies = {
        "first_token_ms": figures(measured.first_ms),
        "inter_token_ms": figures(measured.gaps_ms),
        "per_output_token_ms": figures(measured.per_token_ms),
        "total_ms": figures(measured.total_ms),
    }
    data = {
        **head,
        "completed": completed,
        "failed": failed,
        "failures": dict(measured.failures),
        "examples": measured.examples,
        "confidence": CONFIDENCE,
        "wall_s": wall_s,
        "requests_per_s": completed / wall_s if wall_s else None,
        "output_tokens": measured.output_tokens,
        "output_tokens_per_s": measured.output_tokens / wall_s if wall_s else None,
        "prompt_tokens": measured.prompt_tokens,
        "counted_in": sorted(measured.units),
        **latencies,
        "latencies_ms": list(measured.total_ms),
    }
    names = ("first token", "between tokens", "per token of an answer", "whole answer")
    rows = dict(zip(names, latencies.values(), strict=True))
    counted = " and ".join(sorted(measured.units)) or "tokens"
    view: list[Any] = [f"{completed} of {completed + failed} requests answered in {wall_s:.3f} s"]
    if completed and wall_s:
        view += [
            f"{completed / wall_s:.4g} requests/s, {measured.output_tokens / wall_s:.4g} output {counted}/s",
            figures_table(f"Latency, intervals of {CONFIDENCE:.0%}", rows),
        ]
    view += [f"{times} failed: {measured.examples[reason]}" for reason, times in measured.failures.items()]
    notes = []
    if head["settings"]["has_same_prompt"]:
        notes.append("every request has the same prompt: times to the first token may be of the prefix cache")
    return Result(exit=Exit.INFRASTRUCTURE if failed else Exit.PASS, data=data, view=tuple(view), notes=tuple(notes))
