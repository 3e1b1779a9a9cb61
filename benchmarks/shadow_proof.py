#!/usr/bin/env python3
"""What accuracy shadowing sees on a real split vLLM (CPU, 4.4 M model with a peaked head, our connector).

    benchmarks/shadow_proof.py faults --noise 3000      live: detection delay per fault class
    benchmarks/shadow_proof.py faults --only stale --share 0.01 --most 2000
    benchmarks/shadow_proof.py clean --samples 2000     live: no faults, no alarms
    benchmarks/shadow_proof.py both --long --noise 600  live: clean, then faults, with prompts that have noise
    benchmarks/shadow_proof.py conversations --long --noise 1000   live: no faults, conversations of 40 turns
    benchmarks/shadow_proof.py guard               live: what clients still get once the guard acts
    benchmarks/shadow_proof.py cost                live: milliseconds of score and of replay
    benchmarks/shadow_proof.py replay              recorded figures: seeded runs per class

`faults` and `both` with every class record the samples' figures in benchmarks/data: shadow_short.json, with --long
shadow_long.json, which `replay` and `verdict_days.py` read. Every request is sampled. A table for people, one JSON line
at the end. Needs scripts/setup_vllm_cpu.sh.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from ppd_accuracy.verdicts.noise import BaselineNoise, key_of
from ppd_accuracy.verdicts.verdicts import Tolerances, Verdicts
from shadow_cluster import Watched, dump, noise_row, prompt_of, real_cluster, row, say, statistics_of

DATA = Path(__file__).parent / "data"
FAULTS = {
    "layer_swap": "layer_swap",
    "block_shift": "block_shift",
    "stale": "stale",
    "zero_tail": "zero_tail",
    "fp8": "fp8",
    "scale": "scale:1.2",
    "bitflip": "bitflip:0.001",
}
"""`bitflip` is the last: it makes infinite KV, which stays in freed blocks, and vLLM's CPU attention multiplies unused
slots of a block by zero. Requests that get such a block later break too (status 400), whatever their route."""
ENOUGH = {"fp8": ("red", "amber")}
"""Verdicts that find a fault, where it is not red alone: 8-bit KV is a loss of precision."""
CONVERSATIONS = 40
MOST_SAMPLES = 200
CONCURRENCY = 8
RUNS = ((0.05, MOST_SAMPLES, 50), (0.01, 2000, 10))
"""Share of faulty answers, samples at most, seeded runs."""
LONG_WORDS = (430, 560)
"""vLLM's CPU attention gives bitwise equal logprobs, decoding and prefilling, up to about a thousand tokens."""
TEMPERATURES = (0.0, 1.0)

Run = Callable[[Watched, argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]


def kind_of(scope: dict[str, Any]) -> str:
    """The scope's name; `pair`, of which there is one."""
    name = str(scope["scope"])
    return "pair" if name.startswith("pair:") else name


async def prepare(watched: Watched, noise: int, temperatures: Sequence[float] = (0.0,)) -> None:
    """A noise floor of `noise` samples for each temperature."""
    for temperature in temperatures:
        await watched.ask_many(100, CONCURRENCY, temperature=temperature)
    await watched.open_conversations(20, CONCURRENCY)
    await watched.later_turns(20, CONCURRENCY)
    await watched.calibrated(noise)


async def until_red(watched: Watched, most: int) -> dict[str, Any]:
    """Handed-over requests until the pair is red, at most so many; what the scopes say then.

    As many later turns of conversations that began healthy go straight to the decode engine beside them.
    """
    sent = 0
    reds: dict[str, int] = {}
    decisions: Counter[str] = Counter()
    told: dict[str, Any] = {}
    while sent < most and not {"route:pd", "pair"} <= reds.keys():
        await watched.ask_many(10, CONCURRENCY)
        sent += 10
        decisions.update(await watched.later_turns(10, CONCURRENCY))
        told = await watched.settled()
        for scope in told["scopes"]:
            if scope["verdict"] == "red":
                reds.setdefault(kind_of(scope), sent)
    scopes = {kind_of(each): each["verdict"] for each in told["scopes"]}
    advice = next((each["advice"] for each in told["scopes"] if each["advice"]), None)
    later = Counter(";".join(decision.split(";")[:2]) for decision in decisions.elements())
    return {"samples": sent, "red_after": reds, "scopes": scopes, "advice": advice, "later_turns": dict(later)}


async def faults(watched: Watched, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.what == "faults":
        await prepare(watched, arguments.noise)
    clean_from = await watched.written()
    await watched.ask_many(arguments.clean, CONCURRENCY)
    recorded: dict[str, Any] = {}
    faulty_from = await watched.written()
    recorded["clean"] = watched.statistics(clean_from)[: faulty_from - clean_from]
    found: dict[str, Any] = {}
    for name, fault in FAULTS.items():
        if arguments.only and name not in arguments.only:
            continue
        await watched.open_conversations(CONVERSATIONS, CONCURRENCY)
        await watched.settled()
        await watched.order("reset")
        watched.fault(f"{fault}@{arguments.share}")
        found[name] = await until_red(watched, arguments.most)
        watched.fault(fault)
        before = await watched.written()
        await watched.ask_many(arguments.recorded, CONCURRENCY)
        await watched.written()
        recorded[name] = watched.statistics(before)
        watched.fault("")
        say(f"{name}: {found[name]}")
    noise = next(each for each in await watched.noise() if each["sampling"] == "greedy")
    rows = {name: [row(each) for each in samples] for name, samples in recorded.items()}
    if len(found) == len(FAULTS):
        dump(
            DATA / f"shadow_{'long' if arguments.long else 'short'}.json",
            noise=[noise_row(each) for each in noise["figures"]],
            **rows,
        )
    print(f"{'class':<12}{'samples':>8}{'route:pd':>10}{'pair':>6}   red after; scopes at the end; advice")
    for name, each in found.items():
        reds = each["red_after"]
        print(f"{name:<12}{each['samples']:>8}{reds.get('route:pd', '-'):>10}{reds.get('pair', '-'):>6}", end="")
        print(f"   {each['scopes']}; {each['advice']}; later turns {each['later_turns']}")
    return found


async def clean(watched: Watched, arguments: argparse.Namespace) -> dict[str, Any]:
    await prepare(watched, arguments.noise, TEMPERATURES)
    await watched.order("reset")
    each = arguments.samples // (2 * len(TEMPERATURES))
    seen: set[str] = set()
    before = (await watched.accuracy())["outcomes"]
    for temperature in TEMPERATURES:
        for concurrency in (1, CONCURRENCY):
            for done in range(0, each, 25):
                await watched.ask_many(25, concurrency, temperature=temperature)
                told = await watched.accuracy()
                seen |= {scope["verdict"] for scope in told["scopes"]}
                if done % 100 == 0:
                    say(f"temperature {temperature}, {concurrency} at once: {done}; verdicts so far {sorted(seen)}")
    told = await watched.settled()
    gained = {
        outcome: count - before.get("pd", {}).get(outcome, 0) for outcome, count in told["outcomes"]["pd"].items()
    }
    total = sum(gained.values())
    print(f"{total} samples: {gained}; diverged {gained.get('diverged', 0) / total:.4f}; verdicts {sorted(seen)}")
    for scope in told["scopes"]:
        print(f"{scope['scope']:<44}{scope['verdict']:<9}{scope['reason']}; excess {scope['excess']}")
    return {"outcomes": gained, "verdicts": sorted(seen), "dropped": told["dropped"]}


async def both(watched: Watched, arguments: argparse.Namespace) -> dict[str, Any]:
    return {"clean": await clean(watched, arguments), "faults": await faults(watched, arguments)}


async def conversations(watched: Watched, arguments: argparse.Namespace) -> dict[str, Any]:
    """No faults; conversations go on and on: their contexts grow, and what the decode engine said is part of them."""
    await prepare(watched, arguments.noise)
    await watched.order("reset")
    await watched.open_conversations(CONVERSATIONS, CONCURRENCY)
    seen: dict[str, set[str]] = {}
    for turn in range(2, arguments.turns + 1):
        await watched.later_turns(CONVERSATIONS, CONCURRENCY)
        told = await watched.settled()
        for scope in told["scopes"]:
            seen.setdefault(kind_of(scope), set()).add(scope["verdict"])
        if turn % 5 == 0:
            say(f"turn {turn}: {[(kind_of(each), each['verdict']) for each in told['scopes']]}")
    await watched.written()
    print(f"{'turns':<10}{'samples':>8}{'prompt tokens':>15}{'near':>7}{'rare':>7}{'far':>7}{'mean delta':>12}")
    stretches = []
    for first in range(2, arguments.turns + 1, 5):
        rows = watched.categories("direct", first, first + 4)
        shares = {name: sum(each[0] == name for each in rows) / len(rows) for name in ("near", "rare", "far")}
        tokens, delta = (statistics.mean(each[place] for each in rows) for place in (1, 2))
        stretches.append({"from_turn": first, "samples": len(rows), "prompt_tokens": tokens, **shares})
        print(f"{f'{first} to {first + 4}':<10}{len(rows):>8}{tokens:>15.0f}", end="")
        print(f"{shares['near']:>7.3f}{shares['rare']:>7.3f}{shares['far']:>7.3f}{delta:>12.5f}")
    for scope in told["scopes"]:
        print(f"{kind_of(scope):<14}{scope['verdict']:<9}{scope['reason']}; so far {sorted(seen[kind_of(scope)])}")
    verdicts = {name: sorted(each) for name, each in seen.items()}
    return {"stretches": stretches, "verdicts": verdicts, "recalibrations": told["recalibrations"]}


HEALTHY: dict[str, Run] = {"clean": clean, "both": both, "conversations": conversations}


async def guard(watched: Watched, arguments: argparse.Namespace) -> dict[str, Any]:
    """A fault is switched on; how many faulty answers clients get before, and after, the guard acts."""
    await prepare(watched, arguments.noise)
    await watched.ask_many(200, CONCURRENCY)
    await watched.order("reset")
    before = await watched.written()
    watched.fault(f"{FAULTS['stale']}@{arguments.share}")
    decisions: list[str] = []
    acted_after = None
    while len(decisions) < arguments.samples:
        decisions.extend([await watched.ask() for _ in range(10)])
        told = await watched.accuracy()
        if acted_after is None and told["guard"]["in_force"]:
            acted_after = len(decisions)
            say(f"the guard acted after {acted_after} requests: {told['guard']['in_force']}")
    await watched.written()
    bad = [
        number
        for number, each in enumerate(watched.statistics(before))
        if each.margin > 0.5 or each.max_delta > 0.5 or not each.is_finite
    ]
    later = sorted(set(decisions[acted_after or len(decisions) :]))
    print(
        f"guard acted after {acted_after} of {len(decisions)} requests; faulty answers {len(bad)}, the last one at"
        f" {max(bad, default=None)}; decisions after it: {later}"
    )
    return {"acted_after": acted_after, "faulty": len(bad), "last_faulty": max(bad, default=None)}


async def cost(watched: Watched, arguments: argparse.Namespace) -> dict[str, Any]:
    """The baseline alone: one scoring prefill against one whole replay of the same request, in turn."""
    url = watched.cluster.engine("aggregated").url
    found: dict[str, Any] = {}
    for words, tokens in ((88, 256), (440, 256)):
        score_ms, replay_ms, lengths = [], [], []
        for number in range(arguments.rounds):
            body = {
                "model": watched.model,
                "prompt": prompt_of(words, number),
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
                "logprobs": 0,
            }
            answer, took = await _timed(watched.session, f"{url}/v1/completions", body)
            replay_ms.append(took)
            choice = answer["choices"][0]
            ids = [*choice["prompt_token_ids"], *choice["token_ids"]]
            scoring = {"model": watched.model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
            _, took = await _timed(watched.session, f"{url}/v1/completions", scoring)
            score_ms.append(took)
            lengths.append(len(choice["prompt_token_ids"]))
        prompt = round(statistics.median(lengths))
        score, replay = statistics.median(score_ms), statistics.median(replay_ms)
        found[str(prompt)] = {"score_ms": score, "replay_ms": replay, "ratio": score / replay}
        print(f"{prompt} prompt and {tokens} answer tokens: score {score:.0f} ms, replay {replay:.0f} ms, ", end="")
        print(f"{score / replay:.3f}")
    return found


async def _timed(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    async with session.post(url, json=body) as answer:
        told = await answer.json()
    return told, (loop.time() - started_at) * 1000


def replay() -> dict[str, Any]:
    """Recorded figures through the verdict: the same shares of faulty answers, other seeds."""
    recorded = json.loads((DATA / "shadow_long.json").read_text())
    noise, healthy = recorded.pop("noise"), recorded.pop("clean")
    key = key_of("tiny-peaked", 1500, "greedy")
    found: dict[str, Any] = {}
    print(f"floor of {len(noise)} samples, {len(healthy)} clean samples recorded; fp8: red or amber")
    print(f"{'class':<12}{'shows':>7}{'far':>6}", end="")
    print(f"{'red at 5 %':>12}{'median':>8}{'worst':>7}{'red at 1 %':>12}{'median':>8}")
    for number, (name, faulty) in enumerate(recorded.items()):
        verdicts = _fresh(noise)
        reference = verdicts.noise.reference(key)
        assert reference is not None
        categories = [reference.judge(statistics_of(each), is_greedy=True).category for each in faulty]
        delays = {}
        for share, most, runs in RUNS:
            delays[share] = [
                _delay(noise, healthy, faulty, share, most, 100 * number + seed, ENOUGH.get(name, ("red",)))
                for seed in range(runs)
            ]
        red5 = [delay for delay in delays[0.05] if delay is not None]
        red1 = [delay for delay in delays[0.01] if delay is not None]
        shows = sum(each != "within" for each in categories) / len(categories)
        far = categories.count("far") / len(categories)
        median5, worst = (statistics.median(red5), max(red5)) if red5 else ("-", "-")
        median1 = statistics.median(red1) if red1 else "-"
        print(f"{name:<12}{shows:>7.2f}{far:>6.2f}", end="")
        print(f"{f'{len(red5)}/{len(delays[0.05])}':>12}{median5:>8}{worst:>7}", end="")
        print(f"{f'{len(red1)}/{len(delays[0.01])}':>12}{median1:>8}")
        found[name] = {"shows": shows, "far": far, "delays_5": delays[0.05], "delays_1": delays[0.01]}
    return found


def _fresh(noise: Sequence[Any]) -> Verdicts:
    verdicts = Verdicts(BaselineNoise(least=len(noise), capacity=2 * len(noise)), Tolerances())
    key = key_of("tiny-peaked", 1500, "greedy")
    for each in noise:
        verdicts.add_noise(key, statistics_of(each))
    return verdicts


def _delay(
    noise: Sequence[Any], healthy: Sequence[Any], faulty: Sequence[Any],
    share: float, most: int, seed: int, enough: Collection[str],
) -> int | None:  # fmt: skip
    """Samples from the fault's beginning to a verdict that is enough; 200 clean ones went before."""
    chance = np.random.default_rng(seed)
    verdicts = _fresh(noise)
    key = key_of("tiny-peaked", 1500, "greedy")
    for number in range(-MOST_SAMPLES, most):
        pool = faulty if number >= 0 and chance.random() < share else healthy
        sample = statistics_of(pool[int(chance.integers(len(pool)))])
        verdicts.add(key, sample, prompt_tokens=300, scopes=("route:pd", "pair:p>d"), now=float(number + 1000))
        while (wanted := verdicts.wanted_noise()) is not None:
            verdicts.add_noise(wanted[0], statistics_of(noise[int(chance.integers(len(noise)))]))
        if number >= 0 and verdicts.verdicts()["pair:p>d"] in enough:
            return number + 1
    return None


async def live(run: Run, arguments: argparse.Namespace, *proxy_args: str) -> dict[str, Any]:
    with real_cluster("--shadow-concurrency", str(CONCURRENCY), *proxy_args) as (cluster, fault, journal):
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            words = LONG_WORDS if arguments.long else (55, 80)
            return await run(Watched(cluster, session, fault, journal, cluster.model_name, words), arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faults", "clean", "both", "conversations", "guard", "cost", "replay"))
    parser.add_argument("--long", action="store_true", help="prompts of 1,300 to 1,700 tokens instead of 150 to 250")
    parser.add_argument("--noise", type=int, default=3000, help="noise samples of each kind (default 3000)")
    parser.add_argument("--clean", type=int, default=400, help="clean samples that `faults` records (default 400)")
    parser.add_argument("--recorded", type=int, default=100, help="faulty samples recorded per class (default 100)")
    parser.add_argument("--only", action="append", choices=tuple(FAULTS), help="fault class, repeatable (default all)")
    parser.add_argument("--samples", type=int, default=2000, help="of `clean` and `guard` (default 2000)")
    parser.add_argument("--turns", type=int, default=40, help="of `conversations` (default 40)")
    parser.add_argument("--share", type=float, help="of faulty requests (default: `guard` 0.2, else 0.05)")
    parser.add_argument("--most", type=int, default=MOST_SAMPLES, help="samples until `faults` gives up (default 200)")
    parser.add_argument("--rounds", type=int, default=15, help="of `cost` (default 15)")
    arguments = parser.parse_args()
    if arguments.share is None:
        arguments.share = 0.2 if arguments.what == "guard" else 0.05
    if arguments.what == "replay":
        found = replay()
    elif arguments.what == "faults":
        found = asyncio.run(live(faults, arguments, "--guard", "off", "--shadow-noise-share", "0.05"))
    elif arguments.what in HEALTHY:
        found = asyncio.run(live(HEALTHY[arguments.what], arguments, "--guard", "off"))
    elif arguments.what == "guard":
        found = asyncio.run(live(guard, arguments, "--guard", "act"))
    else:
        found = asyncio.run(live(cost, arguments))
    print(json.dumps({arguments.what: found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
