#!/usr/bin/env python3
"""A chat of several turns through the proxy, and what each turn took.

    scripts/test_client.py --url http://127.0.0.1:10001 --turns 5

Prints per turn: time to first token, total time, prompt tokens, how many of them the engine had cached, and the
route, reason and turn number of the `x-ppd-decision` header. Exit status 1 when a turn failed.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from chat_client import Answer, ProxyClient, new_session
from command_line import at_least, run, shown
from notes import cold_direct_note

SYSTEM = "Conversation {}. You are a guide to the mountains. Answer in two or three sentences."
QUESTIONS = (
    "Which walk do you recommend for somebody who has one day and no experience?",
    "What should I carry with me?",
    "When must I turn back if the weather changes?",
    "Is there a hut on the way where I can eat?",
    "How do I get back to the valley in the evening?",
    "And which walk would you try on the next day?",
)
COLUMNS = ("turn", "first token", "total", "prompt", "cached", "route", "reason")
FORMAT = "{:>4}  {:>11}  {:>11}  {:>6}  {:>6}  {:<10}  {}"


def row(turn: int, answer: Answer) -> str:
    """One line of the table."""
    times = [f"{shown(seconds, 1e3)} ms".replace("- ms", "-") for seconds in (answer.first_token_s, answer.total_s)]
    tokens = [shown(count, digits=0) for count in (answer.prompt_tokens, answer.cached_tokens)]
    return FORMAT.format(turn, *times, *tokens, answer.route, f"{answer.reason} (turn {answer.turn})")


async def converse(options: argparse.Namespace) -> int:
    """Every turn with the history of those before it."""
    async with new_session() as session:
        client = ProxyClient(session, options.url, api_key=options.api_key)
        model = options.model or await client.first_model()
        print(f"{options.url}  model {model}  {options.turns} turns  {'' if options.stream else 'not '}streamed")
        print(FORMAT.format(*COLUMNS), flush=True)
        messages: list[dict[str, str]] = [
            # A number of its own, so that no engine has this conversation cached from an earlier run.
            {"role": "system", "content": SYSTEM.format(secrets.randbelow(900_000) + 100_000)}
        ]
        answers: list[Answer] = []
        for turn in range(1, options.turns + 1):
            question = QUESTIONS[(turn - 1) % len(QUESTIONS)]
            messages.append({"role": "user", "content": question})
            body: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0}
            body["max_tokens"] = options.output_tokens
            if options.stream:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            answer = await client.chat(body)
            answers.append(answer)
            messages.append({"role": "assistant", "content": answer.text})
            print(row(turn, answer), flush=True)
            if options.show_text:
                print(f"      > {question}\n      < {answer.text.strip()}")
        if note := cold_direct_note([answers]):
            print(f"\n{note}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:10001", help="the proxy (default %(default)s)")
    add("--turns", type=at_least(1), default=5, help="turns of the chat (default 5)")
    add("--stream", action=argparse.BooleanOptionalAction, default=True, help="stream answers (default)")
    add("--model", help="model name (default: the first of /v1/models)")
    add("--output-tokens", type=at_least(1), default=48, help="longest answer, tokens (default 48)")
    add("--api-key", help="key that clients must send")
    add("--show-text", action="store_true", help="print questions and answers")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(converse(parse_arguments())))
