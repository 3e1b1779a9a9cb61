#!/usr/bin/env python3
"""Takes docs/pictures/report.png and report-dark.png: a report page of two simulated engines, one of them faulty.

The target has numerical noise of its own, answers now and then as if its KV cache were damaged, and sometimes fails;
a made-up check of KV dumps with a stale block and a bad layer stands beside it. Needs Pillow (matplotlib brings it)
and Chromium: chromium or chromium-browser on the PATH, or CHROMIUM=FILE.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image, ImageChops

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.engines import Engine, engines
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare, force, noise_floor, noise_of
from ppd_acc.data.report import Dataset, EngineInfo, Report, Sample
from ppd_acc.data.totals import totals_of
from ppd_acc.page.document import Extras, page_of
from ppd_acc.page.kv_picture import Heat, Panel, Row
from ppd_acc.page.samples import in_order
from ppd_acc.reports.annotations import Annotation
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.model.model import ModelConfig
from ppd_sim.model.vocabulary import WORDS

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
CREATED_AT = 1_790_000_000.0
_NOISE_NATS, _TARGET_NOISE_NATS = 0.01, 0.015
_SAMPLES, _NOISE_ANSWERS = 240, 24
_LAYERS, _TOKENS, _BIN_TOKENS = 28, 1024, 8
_LISTED = 12
_WIDTH, _HEIGHT, _MARGIN, _MOST_BYTES = 1240, 7000, 30, 300_000
_SAMPLING = Sampling(temperature=0.0, top_p=1.0, seed=42, max_tokens=96, top_k=5)
_ACCESS = Access(
    model=None, api_key=None, headers={}, endpoint="chat", timeout_s=30.0, retries=0, retry_delay_s=0.0, concurrency=8
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", metavar="FILE", help="keep the page, too")
    args = parser.parse_args(argv)
    browser = chromium()
    if browser is None:
        print("no Chromium found; install it, or set CHROMIUM", file=sys.stderr)
        return 3
    report = asyncio.run(_compared())
    worst = in_order(report.samples)[0].sample_id
    notes = {worst: Annotation(sample_id=worst, note="seen again with a cold cache", labels=["kv", "open"])}
    files = [("report", "results.json"), ("KV check", "kv.json")]
    page = page_of(report, Extras(annotations=notes, heat=_heat(), files=files, most_samples=_LISTED))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(args.page or Path(folder) / "report.html")
        file.write_text(page.html.replace('id="sample-0"', 'id="sample-0" open'), encoding="utf-8")
        for name, flags in (("report", ()), ("report-dark", ("--blink-settings=preferredColorScheme=0",))):
            picture = PICTURES / f"{name}.png"
            screenshot(browser, file, picture, *flags)
            _shrink(picture)
            if picture.stat().st_size > _MOST_BYTES:
                print(f"{picture}: {picture.stat().st_size} bytes, at most {_MOST_BYTES}", file=sys.stderr)
                return 1
    return 0


def chromium() -> str | None:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def screenshot(browser: str, page: Path, picture: Path, *flags: str, size: tuple[int, int] = (_WIDTH, _HEIGHT)) -> None:
    """Raises CalledProcessError and TimeoutExpired."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
                "--hide-scrollbars", f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", *flags,
                page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def _shrink(picture: Path) -> None:
    """Without the empty rows below the page, in 96 colours."""
    whole = Image.open(picture).convert("RGB")
    ground = Image.new("RGB", whole.size, whole.getpixel((0, whole.height - 1)))
    box = ImageChops.difference(whole, ground).getbbox()
    bottom = min(whole.height, box[3] + _MARGIN) if box else whole.height
    whole.crop((0, 0, whole.width, bottom)).quantize(96, dither=Image.Dither.NONE).save(picture, optimize=True)


async def _compared() -> Report:
    questions = [Question(prompt=text) for text in _prompts()]
    noise = ModelConfig(prefill_noise_nats=_NOISE_NATS, mean_answer_tokens=80, near_tie_share=0.008)
    other = replace(noise, engine_noise_nats=_TARGET_NOISE_NATS, noise_seed=7)
    async with (
        running_engine(EngineConfig(role="aggregated", model=noise)) as one,
        running_engine(EngineConfig(role="aggregated", model=other)) as two,
        engines(_ACCESS, one.url, two.url) as (baseline, target),
    ):
        floor = await noise_floor(baseline, questions, _SAMPLING, _NOISE_ANSWERS, lambda done: None)
        two.faults.add(
            Fault(kind="corrupt", path="/v1/chat", probability=0.05),
            Fault(kind="status", path="/v1/chat", probability=0.02, message="out of memory"),
        )
        samples = [
            await compare(baseline, target, f"prompt-{number:03}", question, _SAMPLING, floor)
            for number, question in enumerate(questions)
        ]
        for sample, question in zip(samples, questions, strict=True):
            await _force(baseline, sample, question)
    totals = totals_of(each.status for each in samples)
    return Report(
        tool="ppd-acc",
        created_at=CREATED_AT,
        settings={"sampling": msgspec.to_builtins(_SAMPLING), "concurrency": 8, "noise_floor": _NOISE_ANSWERS},
        baseline=EngineInfo(url="http://aggregated:8000", model="sim"),
        target=EngineInfo(url="http://pd-endpoint:8001", model="sim"),
        datasets=[Dataset(path="prompts.jsonl", sha256="4f1c" * 16, samples=_SAMPLES)],
        noise=noise_of(floor),
        totals=totals,
        gate={
            "outcome": "fail",
            "reason": f"{totals.real} real differences; without --fail-threshold any of them fails.",
        },
        samples=samples,
    )


async def _force(baseline: Engine, sample: Sample, question: Question) -> None:
    if sample.is_divergent:
        answer = await baseline.ask(question, _SAMPLING)
        sample.forced = await force(baseline, sample, answer.prompt_token_ids or [])


def _prompts() -> list[str]:
    lots = random.Random(5)
    lengths = [int(8 * 2 ** lots.uniform(0, 8)) for _ in range(_SAMPLES)]
    return [" ".join(lots.choice(WORDS) for _ in range(length)) for length in lengths]


def _heat() -> Heat:
    """Rounding everywhere, more of it in later layers; one block is stale from layer 9 on, in V only."""
    lots = np.random.default_rng(3)
    panels = []
    for name in ("K", "V"):
        rows = []
        for layer in range(_LAYERS):
            errors = 10 ** (lots.normal(-2.6 + 0.012 * layer, 0.08, _TOKENS // _BIN_TOKENS))
            if name == "V" and layer >= 9:
                errors[66:70] = lots.uniform(0.9, 1.3, 4)
            if layer == 17:
                errors *= 6
            starts = tuple(range(0, _TOKENS, _BIN_TOKENS))
            rows.append(Row(label=str(layer), starts=starts, values=tuple(errors.tolist()), tokens=_TOKENS))
        panels.append(Panel(name=name, rows=tuple(rows)))
    found = (
        "V of layers 9 to 27: tokens 528 to 559 are another prompt's",
        "K and V of layer 17: six times the error",
    )
    return Heat(panels=tuple(panels), is_match=False, findings=found)


if __name__ == "__main__":
    sys.exit(main())
