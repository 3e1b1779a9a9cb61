#!/usr/bin/env python3
"""How often verdicts are wrong, and how many samples a fault takes: simulated days with the noise of a real engine.

    benchmarks/verdict_days.py days                     400 clean days of 500 samples
    benchmarks/verdict_days.py days --doubled-after 200 the same with the noise doubled everywhere from then on
    benchmarks/verdict_days.py power --plot docs/pictures/power.svg

Samples come from benchmarks/data/shadow_long.json (`shadow_proof.py both --long` on vLLM 0.32, CPU,
bfloat16): a smoothed bootstrap of the noise floor's own samples, near ties included, and of faulty ones. Live samples
and noise come from the same distribution, as where nothing is wrong. Four of ten turns are pd, the others direct.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppd_accuracy.answers.scores import Statistics
from ppd_accuracy.statistics.intervals import wilson
from ppd_accuracy.verdicts.noise import BaselineNoise, key_of
from ppd_accuracy.verdicts.verdicts import Tolerances, Verdicts
from shadow_cluster import statistics_of

DATA = Path(__file__).parent / "data" / "shadow_long.json"
KEY = key_of("tiny-peaked", 1500, "greedy")
DAY_S = 86400.0
SMOOTHING = 0.1
"""Bandwidth of the bootstrap, of the logarithm: without it no new sample could ever lie beyond all recorded ones."""


class Source:
    """Endless samples like the recorded ones; `scale` multiplies their differences."""

    def __init__(self, rows: Sequence[Any], seed: int) -> None:
        self._rows = rows
        self.chance = np.random.default_rng(seed)

    def sample(self, scale: float = 1.0) -> Statistics:
        tokens, mean, largest, margins, differs, is_finite = self._rows[int(self.chance.integers(len(self._rows)))]
        factor = scale * float(np.exp(SMOOTHING * self.chance.standard_normal()))
        scaled = [each * factor for each in largest]
        return statistics_of([tokens, mean * factor, scaled, [each * factor for each in margins], differs, is_finite])


def watched(source: Source, floor_samples: int) -> Verdicts:
    verdicts = Verdicts(BaselineNoise(least=min(300, floor_samples), capacity=10_000), Tolerances())
    for _ in range(floor_samples):
        verdicts.add_noise(KEY, source.sample())
    return verdicts


def feed(verdicts: Verdicts, live: Statistics, source: Source, now: float, scale: float, route: str) -> None:
    """One live sample; noise that is wanted is taken at once."""
    verdicts.add(KEY, live, prompt_tokens=300, scopes=(f"route:{route}", "pair:p>d"), now=now)
    while (wanted := verdicts.wanted_noise()) is not None:
        verdicts.add_noise(wanted[0], source.sample(scale))


def days(arguments: argparse.Namespace, rows: dict[str, Any]) -> dict[str, Any]:
    source = Source(rows["noise"], arguments.seed)
    verdicts = watched(source, arguments.floor)
    red, amber, recalibrated, green = [], [], [], 0
    for day in range(arguments.days):
        scale = 2.0 if arguments.doubled_after is not None and day >= arguments.doubled_after else 1.0
        seen: set[str] = set()
        before = verdicts.recalibrations
        for number in range(arguments.per_day):
            now = day * DAY_S + number * DAY_S / arguments.per_day
            route = "pd" if source.chance.random() < 0.4 else "direct"
            feed(verdicts, source.sample(scale), source, now, scale, route)
            if source.chance.random() < arguments.noise_share:
                verdicts.add_noise(KEY, source.sample(scale))
            seen.update(verdicts.verdicts().values())
        red += [day] if "red" in seen else []
        amber += [day] if "amber" in seen else []
        recalibrated += [day] * (verdicts.recalibrations - before)
        green += set(verdicts.verdicts().values()) == {"green"}
        if day % 20 == 19:
            print(f"day {day + 1}: red {len(red)}, amber {len(amber)}, recalibrated {recalibrated}", file=sys.stderr)
    interval = wilson(len(red), arguments.days, 0.95)
    print(
        f"{arguments.days} days of {arguments.per_day} samples: {len(red)} with any red"
        f" ({len(red) / arguments.days:.2%}, 95 % interval {interval.low:.2%} to {interval.high:.2%}),"
        f" {len(amber)} with any amber; all green at the end of {green} days; recalibrated on days {recalibrated}"
    )
    return {"days": arguments.days, "red": red, "amber": amber, "recalibrated": recalibrated, "green": green}


def needed(rows: dict[str, Any], fault: str, share: float, floor: int, seed: int, most: int) -> int | None:
    """Samples of the pair from the fault's beginning to red, after 200 clean ones."""
    source, faulty = Source(rows["noise"], seed), Source(rows[fault], seed + 1)
    verdicts = watched(source, floor)
    for number in range(-200, most):
        is_faulty = number >= 0 and source.chance.random() < share
        live = faulty.sample() if is_faulty else source.sample()
        feed(verdicts, live, source, (number + 1000.0) * DAY_S / 500, 1.0, "pd")
        if number >= 0 and verdicts.verdicts()["pair:p>d"] == "red":
            return number + 1
    return None


def power(arguments: argparse.Namespace, rows: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {}
    print(f"{'fault':<10}{'floor':>7}{'share':>7}{'median':>9}{'90 %':>9}{'found':>8}")
    for fault in ("stale", "fp8"):
        for floor in (300, 1000, 3000):
            line = found.setdefault(f"{fault}, floor of {floor}", {"shares": [], "medians": []})
            for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
                runs = [
                    needed(rows, fault, share, floor, arguments.seed + run, arguments.most)
                    for run in range(arguments.runs)
                ]
                ends = sorted(each if each is not None else arguments.most * 2 for each in runs)
                median, late = statistics.median(ends), ends[int(0.9 * (len(ends) - 1))]
                shown = [f"{each:.0f}" if each <= arguments.most else "-" for each in (median, late)]
                hits = sum(each is not None for each in runs)
                print(f"{fault:<10}{floor:>7}{share:>7.2f}{shown[0]:>9}{shown[1]:>9}{hits:>5}/{len(runs)}", flush=True)
                if median <= arguments.most:
                    line["shares"].append(share)
                    line["medians"].append(median)
    if arguments.plot:
        draw(found, arguments.plot)
    return found


def draw(found: dict[str, dict[str, list[float]]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for number, (name, line) in enumerate(found.items()):
        style = "-" if name.startswith("stale") else "--"
        colour = f"C{number % 3}"  # one for each size of the floor
        axes.plot(line["shares"], line["medians"], style, color=colour, marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %"])
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("share of faulty answers")
    axes.set_ylabel("samples until red (median)")
    axes.set_title("How many checked answers a fault takes")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("days", "power"))
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--per-day", type=int, default=500, help="samples a day (default 500)")
    parser.add_argument("--noise-share", type=float, default=0.2, help="noise measurements per sample (default 0.2)")
    parser.add_argument("--floor", type=int, default=1000, help="noise samples before day 0 (default 1000)")
    parser.add_argument("--doubled-after", type=int, metavar="DAY", help="the noise doubles everywhere on that day")
    parser.add_argument("--runs", type=int, default=20, help="of `power`, per point (default 20)")
    parser.add_argument("--most", type=int, default=3000, help="samples after which `power` gives up (default 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", help="draw the power curve there (.svg or .png)")
    arguments = parser.parse_args()
    rows = json.loads(DATA.read_text())
    found = days(arguments, rows) if arguments.what == "days" else power(arguments, rows)
    print(json.dumps({arguments.what: found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
