#!/usr/bin/env python3
"""One conversation of several turns through the proxy, in the mode it is in: what each turn took and what was cached.

    benchmarks/multi_turn.py --turns 5 --input-tokens 100 --output-tokens 50 --format completion --output F.json

Prints one row per turn and one JSON line. With --kv-bytes-per-token or --model-config also the size of the KV cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import command_line
from chat_client import Answer, ProxyClient, new_session
from command_line import at_least, shown, table
from kv_size import add_kv_arguments, read_kv_bytes
from notes import cold_direct_note
from prompts import Prompts, measured_prompts


class Conversation:
    """The history in one of two forms: chat messages, or one growing text."""

    def __init__(self, client: ProxyClient, options: argparse.Namespace) -> None:
        self._client = client
        self._is_chat = options.format == "chat"
        self._messages: list[dict[str, str]] = []
        self._text = ""
        self._body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": options.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def turn(self, text: str) -> Answer:
        """Ask, and keep the answer exactly as it came."""
        if self._is_chat:
            self._messages.append({"role": "user", "content": text})
            answer = await self._client.chat(self._body | {"messages": self._messages})
            self._messages.append({"role": "assistant", "content": answer.text})
        else:
            self._text += f"\n{text}\n" if self._text else f"{text}\n"
            answer = await self._client.complete(self._body | {"prompt": self._text})
            self._text += answer.text
        return answer


async def converse(options: argparse.Namespace) -> tuple[str, list[Answer]]:
    """The proxy's mode and the answers."""
    async with new_session() as session:
        client = ProxyClient(session, options.url, api_key=options.api_key, admin_key=options.admin_key)
        options.model = options.model or await client.first_model()
        prompts: Prompts = await measured_prompts(client, options.model, options.seed)
        conversation = Conversation(client, options)
        answers: list[Answer] = []
        for turn in range(options.turns):
            tokens = options.input_tokens
            answers.append(await conversation.turn(prompts.text(tokens) if turn else prompts.unique(tokens)))
        return await client.mode(), answers


def turn_table(answers: Sequence[Answer], kv_bytes: int | None) -> str:
    """One row per turn; the KV size is that of the prompt."""
    rows = []
    for turn, answer in enumerate(answers, 1):
        size = None if kv_bytes is None or answer.prompt_tokens is None else kv_bytes * answer.prompt_tokens / 2**20
        rows.append(
            [
                str(turn),
                shown(answer.prompt_tokens, digits=0),
                shown(answer.cached_tokens, digits=0),
                "-" if size is None else f"{size:,.2f} MiB",
                shown(answer.first_token_s, 1e3),
                shown(answer.total_s, 1e3),
                answer.route,
                answer.reason,
            ]
        )
    headers = ["Turn", "Cumulative tokens", "Cached tokens", "KV size", "First token (ms)", "Latency (ms)"]
    return table([*headers, "Route", "Reason"], rows)


def summarise(
    options: argparse.Namespace, mode: str, answers: Sequence[Answer], kv_bytes: int | None
) -> dict[str, Any]:
    turns = []
    for turn, answer in enumerate(answers, 1):
        fields = asdict(answer)
        del fields["text"], fields["turn"]
        turns.append({"turn": turn, **fields})
    names = ("url", "model", "format", "input_tokens", "output_tokens")
    chosen = {name: getattr(options, name) for name in names}
    return {"benchmark": "multi_turn", "mode": mode, **chosen, "kv_bytes_per_token": kv_bytes, "turns": turns}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--turns", type=at_least(1), default=5, help="turns of the conversation (default 5)")
    add("--input-tokens", type=at_least(9), default=100, help="about this many new tokens per turn (default 100)")
    add("--output-tokens", type=at_least(1), default=50, help="tokens of every answer (default 50)")
    add("--format", choices=["chat", "completion"], default="completion", help="API (default completion)")
    add_kv_arguments(parser)
    command_line.add_proxy_arguments(parser)
    command_line.add_result_arguments(parser)
    options = parser.parse_args(arguments)
    command_line.check_plot(parser, options.plot)
    options.kv_bytes = read_kv_bytes(parser, options)
    return options


async def main(options: argparse.Namespace) -> int:
    mode, answers = await converse(options)
    print(f"Mode {mode}, {options.format}, {options.output_tokens} tokens per answer\n")
    print(turn_table(answers, options.kv_bytes), end="\n\n")
    if note := cold_direct_note([answers]):
        print(note, end="\n\n")
    summary = summarise(options, mode, answers, options.kv_bytes)
    command_line.write_results(options.output, summary)
    if options.plot:
        from figures import draw_turns

        draw_turns(answers, options.plot)
    command_line.write_json_line(options.json, summary)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main(parse_arguments())))
