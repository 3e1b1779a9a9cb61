"""Commands of ppd-acc on the live journal of a running proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.acc.commands import run_command
from tests.support.cluster import Cluster, running_cluster, until
from tests.support.noise import inject_floor

from ppd_acc.data.report import Report
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Mistake, Trouble
from ppd_proxy.config.sections import Shadow
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.model.model import ModelConfig

NOISE = ModelConfig(prefill_noise_nats=0.01)
LEAST = 50


@asynccontextmanager
async def journalled(path: Path, **settings: Any) -> AsyncIterator[Cluster]:
    """A split cluster that checks and keeps every request."""
    values = {"shadow_rate": 1.0, "shadow_noise_samples": LEAST, "guard": "off", "journal": str(path), **settings}
    async with running_engine(EngineConfig(role="aggregated", model=NOISE)) as baseline:
        async with running_cluster(
            engine={"model": NOISE}, shadow=Shadow(baseline=(baseline.url,), **values)
        ) as cluster:
            yield cluster


async def ask_many(cluster: Cluster, count: int, start: int = 0) -> None:
    limit = asyncio.Semaphore(8)

    async def one(number: int) -> None:
        async with limit:
            text = f"question {number}: what, of all things, would you say that this is about, and why?"
            await cluster.complete(text, max_tokens=12, headers={"x-request-id": f"request/{number}"})

    await asyncio.gather(*(one(number) for number in range(start, start + count)))


async def settled(cluster: Cluster, samples: int) -> None:
    """Everything is judged and on disk."""
    accuracy = cluster.runtime.accuracy
    assert accuracy is not None
    journal = accuracy._journal
    assert journal is not None
    await until(lambda: accuracy.shadow.waiting == 0 and accuracy.shadow.checking == 0)
    await until(lambda: journal.written >= samples)


async def calibrated(cluster: Cluster) -> None:
    """Twenty judged samples of healthy answers."""
    await inject_floor(cluster, 200)
    await ask_many(cluster, 20, start=10_000)


async def report_from(cluster: Cluster, path: Path, *arguments: str) -> Report:
    """All that --from-proxy reads, as filter writes it."""
    await run_command("filter", "--from-proxy", cluster.url, "--output", str(path), *arguments)
    return read_report(path, "--report")


async def test_scored_samples_become_a_report(tmp_path: Path) -> None:
    async with journalled(tmp_path / "journal.db", journal_storage="text") as cluster:
        await calibrated(cluster)
        cluster.decode.faults.add(Fault(kind="corrupt"))
        await ask_many(cluster, 10)
        await settled(cluster, 30)
        report = await report_from(cluster, tmp_path / "report.json")
        by_id = {sample.sample_id: sample for sample in report.samples}
        healthy, faulty = by_id["request/10003"], by_id["request/3"]
        assert len(by_id) == 30
        assert healthy.status in ("equal", "tie")
        assert faulty.status == "real"
        assert faulty.prompt is not None
        assert faulty.prompt.startswith("question 3")
        assert faulty.flip is not None
        assert faulty.flip.is_bound
        assert faulty.flip.target_token == faulty.target.tokens[faulty.flip.position]
        assert faulty.forced is not None
        assert faulty.forced.max_delta == pytest.approx(faulty.max_delta)
        assert len(faulty.baseline.logprobs) == len(faulty.target.tokens)
        assert report.noise.answers >= 200
        assert report.noise.largest_delta is not None
        assert report.totals is not None
        assert report.totals.real >= 9

        told = await run_command("explain", "--from-proxy", cluster.url, "--sample", "request/3")
        assert any("first that differs" in sentence for sentence in told.data["story"])
        assert all(isinstance(place["target_text"], str) for place in told.data["context"])
        old = await run_command(
            "explain", "--from-proxy", cluster.url, "--limit", "1", "--sample", report.samples[0].sample_id
        )
        assert old.data["prompt_tokens"] == report.samples[0].prompt_tokens
        with pytest.raises(Mistake, match="did you mean request/"):
            await run_command("explain", "--from-proxy", cluster.url, "--sample", "request/99999")
        summary = await run_command("summary", "--from-proxy", cluster.url, "--limit", "7")
        assert summary.data["samples"] == 7
        assert any("--limit" in note for note in summary.notes)
        with pytest.raises(Mistake, match="--shadow-method replay"):
            await run_command("length-bias", "--from-proxy", cluster.url)
        entropies = await run_command("entropy", "--from-proxy", cluster.url)
        assert entropies.data["comparison"]["unit"] == "samples"
        assert any("--shadow-top-logprobs" in note for note in entropies.notes)


async def test_entropies_of_a_proxy_are_those_of_the_likeliest_tokens_where_it_compared_them(tmp_path: Path) -> None:
    async with journalled(tmp_path / "journal.db", shadow_top_logprobs=5) as cluster:
        await calibrated(cluster)
        await settled(cluster, 20)
        told = await run_command("entropy", "--from-proxy", cluster.url)
        report = await report_from(cluster, tmp_path / "report.json")
        spreads = [sample.metadata["spread"] for sample in report.samples]
        comparison = told.data["comparison"]
        assert (comparison["unit"], comparison["count"]) == ("samples", 20)
        assert comparison["positions"] == sum(each["positions"] for each in spreads) > 100
        assert comparison["mean_change"] == pytest.approx(sum(each["entropy_change"] for each in spreads) / 20)
        assert comparison["true_change_low"] <= comparison["mean_change"] <= comparison["true_change_high"]
        assert comparison["interval"][0] <= 0 <= comparison["interval"][1]
        assert any("likeliest tokens of 20 samples" in note for note in told.notes)


async def test_all_pages_are_read_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppd_acc.data.from_proxy._PAGE_SAMPLES", 7)
    async with journalled(tmp_path / "journal.db", shadow_noise_samples=LEAST) as cluster:
        await calibrated(cluster)
        await settled(cluster, 20)
        for limit, expected in (("100", 20), ("20", 20), ("13", 13)):
            report = await report_from(cluster, tmp_path / "report.json", "--limit", limit)
            at = [sample.metadata["at"] for sample in report.samples]
            assert len({sample.sample_id for sample in report.samples}) == expected
            assert report.settings["has_more"] is (expected == 13)
            assert max(at[:3]) <= max(at[-3:])


async def test_replayed_samples_have_the_lengths_of_both_answers(tmp_path: Path) -> None:
    async with journalled(tmp_path / "journal.db", shadow_method="replay") as cluster:
        await calibrated(cluster)
        await settled(cluster, 20)
        report = await report_from(cluster, tmp_path / "report.json")
        for sample in report.samples:
            assert sample.metadata["method"] == "replay"
            assert sample.baseline.tokens[: sample.compared_tokens] == sample.target.tokens[: sample.compared_tokens]
        equal = [sample for sample in report.samples if sample.status == "equal"]
        assert equal
        assert all(len(sample.baseline.tokens) == len(sample.target.tokens) for sample in equal)
        bias = await run_command("length-bias", "--from-proxy", cluster.url)
        assert bias.data["pairs"] == 20


async def test_hashes_alone_give_counts_and_say_so(tmp_path: Path) -> None:
    async with journalled(tmp_path / "journal.db", journal_storage="hashes") as cluster:
        await calibrated(cluster)
        await settled(cluster, 20)
        summary = await run_command("summary", "--from-proxy", cluster.url)
        assert summary.data["samples"] == 20
        assert any("keeps no tokens" in note for note in summary.notes)
        with pytest.raises(Mistake, match="no sample has logprobs"):
            await run_command("entropy", "--from-proxy", cluster.url)


async def test_a_proxy_without_an_accuracy_check_is_trouble() -> None:
    async with running_cluster() as cluster:
        with pytest.raises(Trouble, match="accuracy is not checked"):
            await run_command("summary", "--from-proxy", cluster.url)


async def test_an_engine_is_no_proxy() -> None:
    async with running_engine(EngineConfig(role="aggregated")) as engine:
        with pytest.raises(Trouble, match="404"):
            await run_command("summary", "--from-proxy", engine.url, "--retries", "0")


async def test_a_report_and_a_proxy_are_one_too_many() -> None:
    with pytest.raises(Mistake, match="both given"):
        await run_command("summary", "--report", "a.json", "--from-proxy", "http://127.0.0.1:1")
    with pytest.raises(Mistake, match="is missing"):
        await run_command("summary")


async def test_what_filter_writes_of_a_proxy_is_strict_json(tmp_path: Path) -> None:
    async with journalled(tmp_path / "journal.db", journal_storage="text") as cluster:
        await calibrated(cluster)
        await settled(cluster, 20)
        await run_command("filter", "--from-proxy", cluster.url, "--output", str(tmp_path / "report.json"))
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes())["kind"] == "batch-compare"
