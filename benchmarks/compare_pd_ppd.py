#!/usr/bin/env python3
"""Compare the modes pd and ppd on the same proxy: multi-turn chats, one at a time, pd and ppd in turn.

    benchmarks/compare_pd_ppd.py --turns 5 --output-tokens 30 --conversations 6

The proxy is switched with POST /mode/pd and /mode/ppd, and back to what it was at the end. No two conversations share
a prompt, answers are fed back as they came. Prints, per turn, time to first token and total time (medians), what
turns 2 and on of ppd take against pd with an interval, how many requests the prefill engines saw, and where each
turn's prompt tokens came from; then one JSON line. Exit status 1 when a conversation failed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import command_line
from chat_client import ProxyClient, RequestFailed, new_session
from command_line import at_least, shown
from comparison import (
    MODES,
    Comparison,
    Measure,
    TurnResult,
    answers_by_conversation,
    as_json,
    compare,
    first_token_s,
    mean_sources,
    select,
    sentence,
    source_table,
    total_s,
    turn_numbers,
    turn_table,
    waits,
)
from engine_figures import SOURCES, EngineMetrics, find_engine_metrics, gained, route_decisions, summed
from estimates import WAIT_S
from notes import cold_direct_note
from prompts import Prompts, measured_prompts

WARM_UP_TURNS = 2


@dataclass(slots=True)
class Played:
    """One conversation: its turns, why it ended early, and what the engines counted over it."""

    mode: str
    number: int
    turns: list[TurnResult] = field(default_factory=list)
    failure: str | None = None
    engines: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Run:
    """Everything that was measured. `decisions` are the proxy's, by `mode/route`; `metrics` None: no engine read."""

    options: Mapping[str, Any]
    played: list[Played] = field(default_factory=list)
    decisions: Mapping[str, float] = field(default_factory=dict)
    has_metrics: bool = False

    @property
    def complete(self) -> list[Played]:
        return [each for each in self.played if each.failure is None]

    @property
    def results(self) -> list[TurnResult]:
        return [turn for each in self.complete for turn in each.turns]


class Player:
    """Plays conversations through the proxy, one after another."""

    def __init__(
        self, client: ProxyClient, prompts: Prompts, metrics: EngineMetrics | None, options: argparse.Namespace
    ) -> None:
        self._client = client
        self._prompts = prompts
        self._metrics = metrics
        self._options = options

    async def play(self, mode: str, number: int, turns: int) -> Played:
        """One conversation in one mode. A failed request ends it and is told in `failure`."""
        await self._client.set_mode(mode)
        played = Played(mode, number)
        messages: list[dict[str, str]] = []
        before = start = await self._metrics.read() if self._metrics else {}
        try:
            for turn in range(1, turns + 1):
                is_first = turn == 1
                tokens = self._options.first_tokens if is_first else self._options.input_tokens
                text = self._prompts.unique(tokens) if is_first else self._prompts.text(tokens)
                messages.append({"role": "user", "content": text})
                answer = await self._client.chat(self._body(messages))
                messages.append({"role": "assistant", "content": answer.text})
                sources = None
                if self._metrics:
                    after = await self._metrics.read_after(before, "decode_requests")
                    growth = gained(before, after)
                    before = after
                    sources = {name: value for name, value in growth.items() if name in SOURCES} or None
                played.turns.append(
                    TurnResult(mode=mode, conversation=number, turn=turn, answer=answer, sources=sources)
                )
        except RequestFailed as error:
            played.failure = f"turn {len(played.turns) + 1}: {error}"
        if self._metrics:
            played.engines = gained(start, await self._metrics.read())
        return played

    def _body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._options.model,
            "messages": messages,
            "max_tokens": self._options.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        if self._options.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def schedule(conversations: int, order: str, seed: int) -> list[tuple[str, int]]:
    """Mode and number of every conversation: pairs of pd and ppd, which of them first alternating or drawn by lot."""
    generator = random.Random(seed)
    planned: list[tuple[str, int]] = []
    for number in range(conversations):
        is_swapped = number % 2 == 1 if order == "alternate" else generator.random() < 0.5
        planned += [(mode, number) for mode in (reversed(MODES) if is_swapped else MODES)]
    return planned


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


async def measure(options: argparse.Namespace) -> Run:
    """Warm up, play the schedule, and leave the proxy in the mode it was in."""
    async with new_session() as session:
        client = ProxyClient(session, options.url, api_key=options.api_key, admin_key=options.admin_key)
        options.model = options.model or await client.first_model()
        prompts = await measured_prompts(client, options.model, options.seed)
        metrics = await reachable_metrics(options, client, session)
        player = Player(client, prompts, metrics, options)
        run = Run(options=vars(options), has_metrics=metrics is not None)
        mode_before = await client.mode()
        try:
            for number in range(options.warmup):
                for mode in MODES:
                    warm = await player.play(mode, -1 - number, min(WARM_UP_TURNS, options.turns))
                    say(f"warm-up {mode}: {warm.failure or 'done'}")
            before = route_decisions(await client.metrics_text())
            for mode, number in schedule(options.conversations, options.order, options.seed):
                played = await player.play(mode, number, options.turns)
                run.played.append(played)
                times = " ".join(f"{first_token_s(turn) * 1e3:.0f}" for turn in played.turns)
                say(f"conversation {number + 1} {mode:3}: first token {times} ms {played.failure or ''}".rstrip())
            run.decisions = gained(before, route_decisions(await client.metrics_text()))
        finally:
            await client.set_mode(mode_before)
    return run


async def reachable_metrics(options: argparse.Namespace, client: ProxyClient, session: Any) -> EngineMetrics | None:  # noqa: ANN401 - aiohttp's session
    """The engines' metrics; None, and said so, when the proxy does not list its engines or one cannot be read."""
    try:
        metrics = await find_engine_metrics(
            session, client, prefill=options.prefill_metrics, decode=options.decode_metrics
        )
        await metrics.read()
    except RequestFailed as error:
        say(f"the engines' metrics are not read: {error}; name them with --prefill-metrics and --decode-metrics")
        return None
    return metrics


def prefill_requests(run: Run, mode: str) -> dict[str, float | None]:
    """Requests per conversation that reached the prefill engines: as the proxy and as the engines counted them."""
    played = [each for each in run.played if each.mode == mode]
    counted = summed([each.engines for each in played])
    engines = counted.get("prefill_requests")
    return {
        "proxy": run.decisions.get(f"{mode}/pd", 0.0) / len(played),
        "engines": None if engines is None else engines / len(played),
    }


def report(run: Run) -> dict[str, Any]:
    """Print the tables; the summary that goes into the JSON line."""
    results = run.results
    late = waits(results)
    summary: dict[str, Any] = {"benchmark": "compare_pd_ppd", "options": shown_options(run.options)}
    summary["failed"] = len(run.played) - len(run.complete)
    measures: list[tuple[str, str, Measure]] = [("total", "total time", total_s)]
    if run.options["stream"]:
        measures.insert(0, ("first_token", "time to first token", first_token_s))
    for key, name, measure in measures:
        summary[key] = [as_json(each) for each in report_measure(results, measure, name, late, run.options["seed"])]
    summary["waits"] = {mode: sum(each.mode == mode for each in late) for mode in MODES}
    print(
        f"\nWaits (first token over {WAIT_S} s after the median of its mode and turn): "
        f"pd {summary['waits']['pd']}, ppd {summary['waits']['ppd']}."
    )
    seen = {mode: prefill_requests(run, mode) for mode in MODES}
    for counter in ("proxy", "engines"):
        pd, ppd = (shown(seen[mode][counter], digits=2) for mode in MODES)
        print(f"Requests per conversation at the prefill engines, counted by the {counter}: pd {pd}, ppd {ppd}.")
    summary["prefill_requests_per_conversation"] = seen
    summary["prompt_tokens_by_source"] = report_sources(results)
    return summary


def report_measure(
    results: Sequence[TurnResult], measure: Measure, name: str, late: Sequence[TurnResult], seed: int
) -> list[Comparison]:
    """Print the table of one measure and what the later turns come to, with and without the waits."""
    print(f"\n{name.capitalize()}, medians\n\n{turn_table(results, measure)}\n")
    kept = [compare(results, measure, name, seed=seed)]
    if any(result.turn > 1 for result in late):
        kept.append(compare(results, measure, name, seed=seed, without=late))
    found = [each for each in kept if each is not None]
    for each in found:
        print(sentence(each))
    return found


def report_sources(results: Sequence[TurnResult]) -> dict[str, dict[str, dict[str, float] | None]]:
    """Print and return where each turn's prompt tokens came from, by mode and turn."""
    sources = source_table(results)
    if sources is None:
        print("\nWhere the prompt tokens came from is not known: no decode engine told.\n")
    else:
        print("\nWhere the prompt tokens came from, as the decode engines count them, mean per turn")
        print(f"\n{sources}\n")
    if note := cold_direct_note(answers_by_conversation(results)):
        print(f"{note}\n")
    turns = turn_numbers(results)
    return {mode: {str(turn): mean_sources(select(results, mode, turn)) for turn in turns} for mode in MODES}


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run without its keys and file names."""
    hidden = ("api_key", "admin_key", "json", "output", "plot")
    return {name: value for name, value in options.items() if name not in hidden}


def raw_results(run: Run, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the texts."""
    conversations = []
    for each in run.played:
        turns = []
        for result in each.turns:
            answer = asdict(result.answer)
            del answer["text"]
            turns.append({"turn": result.turn, **answer, "decode_tokens_by_source": result.sources})
        conversations.append(
            {"mode": each.mode, "number": each.number, "failure": each.failure, "engines": each.engines, "turns": turns}
        )
    return {"summary": summary, "decisions": run.decisions, "conversations": conversations}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--turns", type=at_least(1), default=5, help="turns of a conversation (default 5)")
    add("--output-tokens", type=at_least(1), default=30, help="tokens of every answer (default 30)")
    add("--conversations", type=at_least(1), default=6, help="conversations per mode (default 6)")
    add("--first-tokens", type=at_least(9), default=1500, help="about this many tokens in turn 1 (default 1500)")
    add("--input-tokens", type=at_least(1), default=100, help="about this many new tokens per turn (default 100)")
    add("--order", choices=["alternate", "random"], default="alternate", help="which mode of a pair comes first")
    add("--warmup", type=at_least(0), default=1, help="conversations per mode that do not count (default 1)")
    add("--stream", action=argparse.BooleanOptionalAction, default=True, help="stream answers (default)")
    command_line.add_proxy_arguments(parser)
    command_line.add_result_arguments(parser)
    options = parser.parse_args(arguments)
    command_line.check_plot(parser, options.plot)
    return options


async def main(options: argparse.Namespace) -> int:
    run = await measure(options)
    for each in run.played:
        if each.failure is not None:
            say(f"conversation {each.number + 1} {each.mode} failed at {each.failure}")
    if {each.mode for each in run.complete} != set(MODES):
        say("error: no complete conversation in both modes, nothing to compare")
        return 1
    summary = report(run)
    command_line.write_results(options.output, raw_results(run, summary))
    if options.plot:
        from figures import draw_comparison

        draw_comparison(run.results, options.plot)
    command_line.write_json_line(options.json, summary)
    return 0 if len(run.complete) == len(run.played) else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main(parse_arguments())))
