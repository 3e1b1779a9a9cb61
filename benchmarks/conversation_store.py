#!/usr/bin/env python3
"""What a full store of conversations takes, how long a long history takes in it, and its longest steps.

    benchmarks/conversation_store.py [--conversations 1000000] [--requests 2000]

Fills a store with five-turn conversations up to its bound, then asks it for histories of 42 messages and 32,000 tokens
(4 bytes each): known but for the last turn, and all new. Prints resident bytes per conversation; how long look-up and
decision take once a body is parsed, and with parsing and hashing; and the longest single call of each kind, which is
how long the event loop stands still. Runs without engines and without a proxy; three minutes and a GB for a million.
Other work on the machine is in the times. Exit status 0.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from xxhash import xxh3_128_digest

import machine
from command_line import at_least, table
from ppd_core.conversation.conversations import Conversations
from ppd_core.conversation.history import Home
from ppd_core.conversation.identity import AnswerSteps, chat_steps, last_assistant, scope
from ppd_core.fleet.engine import Engine, FleetView, Role
from ppd_core.policy.decide import decide
from ppd_core.policy.plan import Demand
from ppd_core.policy.situation import Situation
from ppd_wire.requests.generation import parse

TURNS: Final = 5
MESSAGES: Final = 42
TOKENS: Final = 32_000
BYTES_PER_TOKEN: Final = 4
PAGE_BYTES: Final = 4096
ENGINES: Final = 16
SYSTEM: Final = xxh3_128_digest(b"system")


def main() -> int:
    arguments = parse_arguments()
    store = Conversations(max_conversations=arguments.conversations, ttl_s=1e9)
    worst: dict[str, float] = {}
    gc.freeze()
    before_bytes = resident_bytes()
    fill(store, arguments.conversations, worst)
    each_bytes = (resident_bytes() - before_bytes) / arguments.conversations
    rows = measure(store, arguments.requests)
    worst["forget the homes at one engine"] = timed(lambda: store.forget_homes(is_at_the_first))
    worst["expire, as many as at once"] = max(timed(lambda: store.expire(2e9)) for _ in range(200))
    worst["clear"] = timed(store.clear)
    worst["free what was cleared"] = max(timed(lambda: store.expire(0.0)) for _ in range(200))
    print(machine.sentence(machine.describe(sys.executable, dict(os.environ))))
    print(f"{arguments.conversations:,} conversations of {TURNS} turns: {each_bytes:.0f} bytes each, resident")
    print()
    names = ("Microseconds", "p50", "p99", "most")
    print(table(names, [(name, *[f"{shown * 1e6:.0f}" for shown in quantiles(times)]) for name, times in rows.items()]))
    print()
    print(table(("Longest call", "ms"), [(name, f"{longest_s * 1e3:.2f}") for name, longest_s in worst.items()]))
    figures = {name: [round(each * 1e6, 1) for each in quantiles(times)] for name, times in rows.items()}
    longest_ms = {name: round(longest_s * 1e3, 3) for name, longest_s in worst.items()}
    summary = {"benchmark": "conversation_store", "arguments": vars(arguments), "bytes_each": round(each_bytes)}
    print(json.dumps({**summary, "us": figures, "longest_ms": longest_ms}))
    return 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--conversations", type=at_least(1), default=1_000_000, help="the store's bound (default 1000000)"
    )
    parser.add_argument("--requests", type=at_least(10), default=2000, help="measured of each kind (default 2000)")
    return parser.parse_args(argv)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def quantiles(times: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(times)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1]


def fill(store: Conversations, count: int, worst: dict[str, float]) -> None:
    """Turn by turn, as many conversations at a time play; the longest call goes into `worst`."""
    homes = [Home(engine_id=f"d{number}:8000", incarnation=0, held_tokens=500) for number in range(ENGINES)]
    longest_s = 0.0
    for turn in range(TURNS):
        for conversation in range(count):
            *steps, answer = itertools.islice(path(conversation), 2 * turn + 3)
            home, now = homes[conversation % ENGINES], float(turn)
            full = AnswerSteps(full=answer)
            started_at = time.perf_counter()
            store.remember_chat(steps, full, home=home, prompt_tokens=400, now=now)
            longest_s = max(longest_s, time.perf_counter() - started_at)
        print(f"turn {turn + 1} of {TURNS}", file=sys.stderr)
    worst["remember"] = longest_s


def path(conversation: int) -> Iterator[bytes]:
    """The steps of one conversation: a system prompt that all share, then questions and answers."""
    step = SYSTEM
    for number in itertools.count():
        yield step
        step = xxh3_128_digest(step + b"%d.%d" % (conversation, number))


def measure(store: Conversations, requests: int) -> dict[str, list[float]]:
    """Seconds of each request, by what was done."""
    decodes = tuple(engine(f"d{number}", "decode") for number in range(ENGINES))
    prefill = engine("p", "prefill")
    situation = Situation(mode="ppd", fleet=FleetView(prefill=(prefill,), decode=decodes, aggregated=()))
    digest = scope(api_key="key", fields={"model": msgspec.Raw(b'"m"')})
    rows: dict[str, list[float]] = {}

    def ask(name: str, body: bytes) -> None:
        started_at = time.perf_counter()
        generation = parse("chat", body)
        steps = chat_steps(digest, generation.messages)
        last = last_assistant(generation.messages)
        parsed_at = time.perf_counter()
        history = store.look_up_chat(steps, last_assistant=last, now=5.0)
        decide(Demand(history=history, prompt_tokens=TOKENS, spread_key=steps[0]), situation)
        ended_at = time.perf_counter()
        rows.setdefault(f"{name}: look up and decide", []).append(ended_at - parsed_at)
        rows.setdefault(f"{name}: with parsing and hashing", []).append(ended_at - started_at)

    for number in range(requests):
        messages = chat(number)
        steps = chat_steps(digest, messages[:-2])
        home = Home(engine_id="d1:8000", incarnation=0, held_tokens=TOKENS)
        answer = AnswerSteps(full=chat_steps(steps[-1], messages[-2:-1])[0])
        store.remember_chat(steps, answer, home=home, prompt_tokens=TOKENS, now=5.0)
        ask("last turn new", msgspec.json.encode({"model": "m", "messages": messages}))
        ask("all new", msgspec.json.encode({"model": "m", "messages": chat(-1 - number)}))
    return rows


def engine(name: str, role: Role) -> Engine:
    return Engine(
        id=f"{name}:8000", url=f"http://{name}:8000", role=role, handoff="nixl", state="up", source="static"
    )


def is_at_the_first(home: Home) -> bool:
    return home.engine_id == "d0:8000"


def chat(number: int) -> list[dict[str, Any]]:
    size_bytes = TOKENS * BYTES_PER_TOKEN // MESSAGES
    roles = ["system", *itertools.islice(itertools.cycle(("user", "assistant")), MESSAGES - 1)]
    return [
        {"role": role, "content": (f"{number} {place} " + "says a few words more. " * size_bytes)[:size_bytes]}
        for place, role in enumerate(roles)
    ]


if __name__ == "__main__":
    sys.exit(main())
