"""With likeliest tokens asked for, samples are compared by entropy and divergence too, and clients notice nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.flow.test_shadow import ask_many, calibrate, settle, shadow, shadowed, summary
from tests.support.cluster import LIMIT_S

from ppd_proxy.sim.faults import Fault

TOP = 4
QUESTION = "what, of all things, would you say that this is about, and how sure are you of it, and why?"


async def kept_sample(cluster, sample_id):
    async with asyncio.timeout(LIMIT_S):
        while (kept := await cluster.ask(f"/accuracy/samples/{sample_id}")).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return kept.json


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_spread_of_a_sample_is_in_the_journal_and_in_the_summary(tmp_path: Path, stream: bool) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite"), shadow_top_logprobs=TOP) as (cluster, baseline):
        await calibrate(cluster)
        reply = await cluster.complete(QUESTION, stream=stream, headers={"x-request-id": "mine"})
        assert b"token_id:" not in reply.body
        await settle(cluster)
        (decode,) = (each for each in cluster.decode.requests if each.body["prompt"] == QUESTION)
        assert (decode.body["logprobs"], decode.body["return_tokens_as_token_ids"]) == (TOP + 1, True)
        scorings = [each.body["prompt_logprobs"] for each in baseline.requests if "prompt_logprobs" in each.body]
        assert set(scorings) == {1, TOP}
        spread = (await kept_sample(cluster, "mine"))["spread"]
        assert spread["positions"] == 20
        assert spread["entropy_low"] <= spread["entropy_change"] <= spread["entropy_high"]
        assert 0 <= spread["divergence"] <= spread["largest_divergence"] < 0.01
        told = await summary(cluster)
        assert told["top_logprobs"] == TOP
        assert {abs(scope["entropy_change"]) < 0.01 for scope in told["scopes"]} == {True}


async def test_damaged_kv_diverges(tmp_path: Path) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite"), shadow_top_logprobs=TOP) as (cluster, _):
        await calibrate(cluster)
        cluster.decode.faults.add(Fault(kind="corrupt", probability=1.0))
        await cluster.complete(QUESTION, headers={"x-request-id": "mine"})
        await settle(cluster)
        assert (await kept_sample(cluster, "mine"))["spread"]["largest_divergence"] > 0.5


async def test_by_default_no_likeliest_tokens_are_asked_for(tmp_path: Path) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite")) as (cluster, _):
        await calibrate(cluster)
        await cluster.complete(QUESTION, headers={"x-request-id": "mine"})
        await settle(cluster)
        assert (await kept_sample(cluster, "mine"))["spread"] is None
        told = await summary(cluster)
        assert (told["top_logprobs"], {scope["entropy_change"] for scope in told["scopes"]}) == (0, {None})


async def test_a_decode_engine_that_refuses_as_many_costs_one_more_try_and_no_answer(caplog) -> None:
    async with shadowed(shadow_top_logprobs=50) as (cluster, _):
        answers = await ask_many(cluster, 20)
        assert {answer.status for answer in answers} == {200}
        await settle(cluster)
        assert shadow(cluster).asked_tops == 0
        assert (await summary(cluster))["top_logprobs"] == 0
        (warning,) = {each.getMessage() for each in caplog.records if "--max-logprobs" in each.getMessage()}
        assert f"{cluster.decode.http_address} refuses 51 logprobs" in warning
        assert "--shadow-top-logprobs" in warning


async def test_a_baseline_that_refuses_as_many_still_scores(caplog) -> None:
    body = {"error": {"message": "Requested prompt logprobs of 4, which is greater than max allowed: 3", "code": 400}}
    async with shadowed(shadow_top_logprobs=TOP, shadow_concurrency=1) as (cluster, baseline):
        await calibrate(cluster)
        baseline.faults.add(Fault(kind="status", status=400, body=body, times=1))
        before = shadow(cluster).checks["score"]
        await cluster.complete(QUESTION)
        await settle(cluster)
        assert shadow(cluster).checks["score"] == before + 1
        assert shadow(cluster).asked_tops == 0
        assert "a baseline refuses" in caplog.text
