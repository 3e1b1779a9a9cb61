#!/usr/bin/env python3
"""What knowing a conversation costs: CPU per request and memory per conversation.

Prints one table (microseconds per request: hash the history, look it up, remember it with its answer; once in an empty
store, once in a full one) and one JSON line. Runs without engines.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec

from ppd_core.conversation.conversations import Conversations
from ppd_core.conversation.history import Home
from ppd_core.conversation.identity import (
    AnswerSteps,
    RememberedAnswer,
    answer_steps,
    chat_steps,
    last_assistant,
    raw_steps,
    scope,
)

Message = dict[str, Any]
FIELDS = {"model": msgspec.Raw(b'"org/model-8b"')}
HOME = Home(engine_id="10.0.0.1:8200", incarnation=1, held_tokens=2000)
ANSWER = RememberedAnswer(content="The answer, in so many words. " * 8)


def text(name: str, size_bytes: int) -> str:
    return (name + " says a few words more. " * (size_bytes // 24 + 1))[:size_bytes]


def turns(name: str, count: int, message_bytes: int) -> list[list[Message]]:
    """The message lists of the successive requests of one chat: a system prompt, then users and answers."""
    messages: list[Message] = [{"role": "system", "content": text("system", 1000)}]
    requests = []
    for turn in range(count):
        messages.append({"role": "user", "content": text(f"{name} {turn}", message_bytes)})
        requests.append(list(messages))
        messages.append({"role": "assistant", "content": ANSWER.content})
    return requests


def best_us(work: Callable[[], object], *, loops: int, rounds: int) -> float:
    """Microseconds of CPU per call: the fastest round, as the others only add what else the machine does."""
    best = float("inf")
    for _ in range(rounds):
        started_at = time.process_time()
        for _ in range(loops):
            work()
        best = min(best, time.process_time() - started_at)
    return best / loops * 1e6


def remember(store: Conversations, messages: list[Message], now: float) -> None:
    steps = chat_steps(scope(api_key="key", fields=FIELDS), messages)
    home = msgspec.structs.replace(HOME)  # its own, as for each request
    store.remember_chat(steps, answer_steps(steps[-1], ANSWER), home=home, prompt_tokens=1900, now=now)


def filled(store: Conversations, count: int, turn_count: int) -> Conversations:
    for index in range(count):
        for messages in turns(f"user {index}", turn_count, 64):
            remember(store, messages, float(index))
    return store


def chat_row(store: Conversations, turn_count: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The last turn of one chat: hash, look up, remember. Each call remembers another answer."""
    last = turns("measured", turn_count, arguments.message_bytes)[-1]
    now = float(arguments.conversations)
    for messages in turns("measured", turn_count, arguments.message_bytes)[:-1]:
        remember(store, messages, now)
    digest = scope(api_key="key", fields=FIELDS)
    steps = chat_steps(digest, last)
    index = last_assistant(last)
    answers = (AnswerSteps(full=b"%4d%12d" % (turn_count, number)) for number in itertools.count())
    times = {"loops": arguments.loops, "rounds": arguments.rounds}
    row = {
        "identify_us": best_us(
            lambda: (chat_steps(scope(api_key="key", fields=FIELDS), last), last_assistant(last)), **times
        ),
        "look_up_us": best_us(lambda: store.look_up_chat(steps, last_assistant=index, now=now), **times),
        "answer_us": best_us(lambda: answer_steps(steps[-1], ANSWER), **times),
        "remember_us": best_us(
            lambda: store.remember_chat(steps, next(answers), home=HOME, prompt_tokens=1900, now=now), **times
        ),
    }
    row["total_us"] = sum(row.values())
    return row


def raw_row(store: Conversations, size_bytes: int, arguments: argparse.Namespace) -> dict[str, float]:
    """A raw text prompt that starts with a remembered prompt and answer of nine tenths its size."""
    digest = scope(api_key="key", fields=FIELDS)
    prompt = text("raw", size_bytes)
    now = float(arguments.conversations)
    known = raw_steps(digest, prompt[: size_bytes * 8 // 10])
    store.remember_raw(known, prompt[size_bytes * 8 // 10 : size_bytes * 9 // 10], home=HOME, prompt_tokens=1, now=now)
    steps = raw_steps(digest, prompt)
    times = {"loops": max(1, arguments.loops // 10), "rounds": arguments.rounds}
    row = {
        "identify_us": best_us(lambda: raw_steps(scope(api_key="key", fields=FIELDS), prompt), **times),
        "look_up_us": best_us(lambda: store.look_up_raw(steps, now=now), **times),
        "answer_us": 0.0,
        "remember_us": best_us(
            lambda: store.remember_raw(steps, ANSWER.content, home=HOME, prompt_tokens=1900, now=now), **times
        ),
    }
    row["total_us"] = sum(row.values())
    return row


def bytes_per_conversation(count: int, turn_count: int) -> float:
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    store = filled(Conversations(max_conversations=count, ttl_s=1e9), count, turn_count)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / store.count


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000, help="two-turn conversations in the full store")
    parser.add_argument("--measured", type=int, default=5_000, help="five-turn conversations whose memory is measured")
    parser.add_argument("--message-bytes", type=int, default=200, help="size of a user message")
    parser.add_argument("--loops", type=int, default=5_000, help="calls per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the fastest counts")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stores = {"empty": Conversations(max_conversations=arguments.conversations * 2, ttl_s=1e9)}
    rows: dict[str, dict[str, float]] = {}
    stores["full"] = filled(
        Conversations(max_conversations=arguments.conversations * 2, ttl_s=1e9), arguments.conversations, 2
    )
    for name, store in stores.items():
        rows[f"chat, 5 turns, {name} store"] = chat_row(store, 5, arguments)
        rows[f"chat, 50 turns, {name} store"] = chat_row(store, 50, arguments)
        rows[f"raw text, 100 kB, {name} store"] = raw_row(store, 100_000, arguments)
    memory = {
        f"bytes_per_{turn_count}_turn_conversation": round(bytes_per_conversation(arguments.measured, turn_count))
        for turn_count in (1, 5)
    }
    columns = ("identify_us", "look_up_us", "answer_us", "remember_us", "total_us")
    print(f"{'microseconds per request':34}" + "".join(f"{column.removesuffix('_us'):>10}" for column in columns))
    for name, row in rows.items():
        print(f"{name:34}" + "".join(f"{row[column]:>10.1f}" for column in columns))
    for name, value in memory.items():
        print(f"{name.replace('_', ' ')}: {value:,}")
    print(json.dumps({"benchmark": "conversations", "arguments": vars(arguments), "rows": rows, **memory}))


if __name__ == "__main__":
    main()
