"""With likeliest tokens asked for, samples are compared by entropy and divergence too, and clients notice nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.flow.test_shadow import LEAST, ask_many, kept_sample, settle, shadow, shadowed, summary
from tests.support.cluster import until
from tests.support.noise import inject_floor

from ppd_proxy.config.sections import Limits
from ppd_sim.faults import Fault

TOP = 4
QUESTION = "what, of all things, would you say that this is about, and how sure are you of it, and why?"


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_spread_of_a_sample_is_in_the_journal_and_in_the_summary(tmp_path: Path, stream: bool) -> None:
    def scorings() -> set[int]:
        return {each.body["prompt_logprobs"] for each in baseline.requests if "prompt_logprobs" in each.body}

    settings = {"journal": str(tmp_path / "journal.sqlite"), "shadow_top_logprobs": TOP, "shadow_noise_share": 1.0}
    async with shadowed(**settings) as (cluster, baseline):
        await inject_floor(cluster, LEAST)
        reply = await cluster.complete(QUESTION, stream=stream, headers={"x-request-id": "mine"})
        assert b"token_id:" not in reply.body
        await settle(cluster)
        (decode,) = (each for each in cluster.decode.requests if each.body["prompt"] == QUESTION)
        assert (decode.body["logprobs"], decode.body["return_tokens_as_token_ids"]) == (TOP + 1, True)
        await until(lambda: len(scorings()) > 1)
        assert scorings() == {1, TOP + 1}  # noise is measured without them
        spread = (await kept_sample(cluster, "mine"))["spread"]
        assert spread["positions"] == 20
        assert spread["entropy_low"] <= spread["entropy_change"] <= spread["entropy_high"]
        assert 0 <= spread["divergence"] <= spread["largest_divergence"] < 0.01
        told = await summary(cluster)
        assert told["top_logprobs"] == TOP
        assert {abs(scope["entropy_change"]) < 0.01 for scope in told["scopes"]} == {True}


async def test_damaged_kv_diverges(tmp_path: Path) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite"), shadow_top_logprobs=TOP) as (cluster, _):
        await inject_floor(cluster, LEAST)
        cluster.decode.faults.add(Fault(kind="corrupt", probability=1.0))
        await cluster.complete(QUESTION, headers={"x-request-id": "mine"})
        await settle(cluster)
        assert (await kept_sample(cluster, "mine"))["spread"]["largest_divergence"] > 0.5


async def test_by_default_no_likeliest_tokens_are_asked_for(tmp_path: Path) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite")) as (cluster, _):
        await inject_floor(cluster, LEAST)
        await cluster.complete(QUESTION, headers={"x-request-id": "mine"})
        await settle(cluster)
        assert (await kept_sample(cluster, "mine"))["spread"] is None
        told = await summary(cluster)
        assert (told["top_logprobs"], {scope["entropy_change"] for scope in told["scopes"]}) == (0, {None})


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_decode_engine_that_refuses_as_many_costs_no_try_and_no_answer(caplog, stream: bool) -> None:
    async with shadowed(shadow_top_logprobs=20, limits=Limits(retries=0)) as (cluster, _):
        answers = await ask_many(cluster, 20, stream=stream)
        assert {(answer.status, answer.route) for answer in answers} == {(200, "pd")}
        await settle(cluster)
        refused = [each for each in cluster.decode.requests if each.body.get("logprobs") == 21]
        assert refused
        assert len(cluster.decode.requests) == 20 + len(refused)
        assert len(cluster.prefill.requests) == 20 + len(refused)
        assert sum(answer.reason == "decode_failed" for answer in answers) == len(refused)
        assert (await cluster.samples())["ppd_kv_stranded_total"] == len(refused)
        assert shadow(cluster).checks["score"] == 20 - len(refused)
        assert (await summary(cluster))["top_logprobs"] == shadow(cluster).asked_tops == 0
        (warning,) = (each.getMessage() for each in caplog.records if "--max-logprobs" in each.getMessage())
        assert f"{cluster.decode.http_address} refuses 21 logprobs" in warning
        assert "--shadow-top-logprobs" in warning


async def test_an_error_that_only_quotes_such_a_refusal_is_the_clients() -> None:
    body = {"error": {"message": "bad input: 'logprobs of 5, which is greater than max allowed'", "code": 400}}
    async with shadowed(shadow_top_logprobs=TOP) as (cluster, _):
        cluster.decode.faults.add(Fault(kind="status", status=400, body=body, times=1))
        assert (await cluster.complete(QUESTION)).status == 400
        assert shadow(cluster).asked_tops == TOP + 1


REFUSAL = "Requested prompt logprobs of 5, which is greater than max allowed: 3"


@pytest.mark.parametrize(
    ("status", "message", "checks", "asked"),
    [(400, REFUSAL, 1, 0), (400, "no such model", 0, TOP + 1), (429, "too many requests", 0, TOP + 1)],
)
async def test_only_a_baseline_that_refuses_as_many_is_asked_for_none(caplog, status, message, checks, asked) -> None:
    async with shadowed(shadow_top_logprobs=TOP, shadow_concurrency=1, shadow_noise_share=0.0) as (cluster, baseline):
        await inject_floor(cluster, LEAST)
        baseline.faults.add(
            Fault(kind="status", status=status, body={"error": {"message": message, "code": status}}, times=1)
        )
        before = shadow(cluster).checks["score"]
        await cluster.complete(QUESTION)
        await settle(cluster)
        assert shadow(cluster).checks["score"] == before + checks
        assert shadow(cluster).asked_tops == asked
        assert ("a baseline refuses" in caplog.text) is (asked == 0)


async def test_scores_too_large_to_read_are_asked_for_again_without_them(tmp_path: Path, monkeypatch) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite"), shadow_top_logprobs=TOP) as (cluster, _):
        await inject_floor(cluster, LEAST)
        monkeypatch.setattr("ppd_proxy.shadow.baseline._MAX_ANSWER_BYTES", 8_000)
        await cluster.complete(QUESTION, headers={"x-request-id": "mine"})
        await settle(cluster)
        sample = await kept_sample(cluster, "mine")
        assert (len(sample["baseline_logprobs"]), sample["spread"]) == (20, None)
        assert shadow(cluster).asked_tops == TOP + 1


async def test_replays_ask_the_decode_engine_for_no_likeliest_tokens() -> None:
    async with shadowed(shadow_method="replay", shadow_top_logprobs=TOP) as (cluster, _):
        await cluster.complete(QUESTION)
        assert cluster.decode.requests[-1].body["logprobs"] == 0


async def test_likeliest_tokens_that_the_client_asked_for_are_compared_if_they_are_enough(tmp_path: Path) -> None:
    async with shadowed(journal=str(tmp_path / "journal.sqlite"), shadow_top_logprobs=TOP) as (cluster, _):
        await inject_floor(cluster, LEAST)
        for count, by_id, positions in ((2, True, None), (TOP + 1, True, 20), (TOP + 1, False, None)):
            name = f"mine-{count}-{by_id}"
            fields = {"logprobs": count, "return_tokens_as_token_ids": by_id}
            await cluster.complete(QUESTION, headers={"x-request-id": name}, **fields)
            await settle(cluster)
            spread = (await kept_sample(cluster, name))["spread"]
            assert (None if spread is None else spread["positions"]) == positions
