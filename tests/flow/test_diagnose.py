"""diagnose against the real proxy: the stage that breaks is the one that was broken."""

from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from tests.support.acc.commands import run_command
from tests.support.cluster import running_cluster

from ppd_acc.outcome import Exit, Mistake
from ppd_proxy.config.sections import Routing
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.model.model import ModelConfig

MODEL = ModelConfig(prefill_noise_nats=0.02)
NOISY = replace(MODEL, engine_noise_nats=0.3)
SHORT = ("--prompt", "Tell me about the mill and the river.", "--max-tokens", "24", "--noise-floor", "4")
ORDERED = ("--repeats", "1", "--concurrency", "1")
CHAT = "/v1/chat"
HEALTH, PD, WARM, DIRECT = 1, 2, 3, 4
"""The requests that a decode engine gets of one question, from 1."""


@asynccontextmanager
async def split(**facts):
    """An unsplit baseline and a proxy in front of a prefill and a decode engine with the same model."""
    async with running_engine(EngineConfig(role="aggregated", model=MODEL)) as baseline:
        async with running_cluster(engine={"model": MODEL}, **facts) as cluster:
            yield baseline, cluster


async def diagnosed(baseline, cluster, *arguments):
    return await run_command("diagnose", "--baseline", baseline.url, "--target", cluster.url, *SHORT, *arguments)


def nodes(cluster):
    return "--prefill-node", cluster.prefills[0].url, "--decode-node", cluster.decodes[0].url


def states(result):
    return {each["stage"]: each["state"] for each in result.data["stages"]}


def routes(result, stage):
    (found,) = [each for each in result.data["stages"] if each["stage"] == stage]
    return {decision.split(";")[0]: count for decision, count in found["routes"].items()}


def place(result):
    return result.data["located"]["place"]


async def test_a_healthy_split_breaks_nowhere_and_its_routes_are_told():
    async with split() as (baseline, cluster):
        result = await diagnosed(baseline, cluster)
    assert states(result) == dict.fromkeys(("prefill", "pd", "warm", "direct"), "clean")
    assert (result.exit, place(result)) == (Exit.PASS, None)
    assert (routes(result, "pd"), routes(result, "direct")) == ({"pd": 4}, {"direct": 4})
    assert [rule["applies"] for rule in result.data["guide"]] == [True, False, False, False, False]
    assert [len(stage["samples"]) for stage in result.data["stages"]] == [4, 4, 4, 4]


async def test_the_proxy_is_detected_and_names_its_routes():
    async with split() as (baseline, cluster):
        found = await run_command("detect", cluster.url)
        health = await run_command("healthcheck", baseline.url, cluster.url)
    (endpoint,) = found.data["endpoints"]
    assert endpoint["kind"] == "ppd-proxy"
    assert {sign["told"].split(", ")[1] for sign in endpoint["signs"] if sign["source"] == "/engines"} == {
        "prefill", "decode"
    }  # fmt: skip
    assert [each["decision"] for each in health.data["endpoints"]] == [None, "pd;reason=first_turn;turn=1"]
    assert health.exit == Exit.PASS


async def test_caches_are_cold_for_pd_and_warm_for_what_follows():
    async with split() as (baseline, cluster):
        await diagnosed(baseline, cluster, *ORDERED)
        (decode,) = cluster.decodes
        salts = [each.body.get("cache_salt") for each in decode.requests if each.path == "/v1/chat/completions"]
    assert salts[HEALTH - 1] is None
    assert len(set(salts[PD - 1 : DIRECT])) == 1
    assert salts[DIRECT] not in salts[:DIRECT]


async def test_damage_in_later_turns_is_found_in_direct():
    async with split() as (baseline, cluster):
        cluster.decodes[0].faults.add(Fault(kind="corrupt", path=CHAT, nth=DIRECT))
        result = await diagnosed(baseline, cluster, *ORDERED)
    assert (result.exit, place(result)) == (Exit.DIFFERENT, "direct")
    assert states(result)["pd"] == "clean"


async def test_damage_of_a_warm_cache_is_found_in_the_cache():
    async with split() as (baseline, cluster):
        cluster.decodes[0].faults.add(Fault(kind="corrupt", path=CHAT, nth=WARM))
        result = await diagnosed(baseline, cluster, *ORDERED)
    assert (result.exit, place(result)) == (Exit.DIFFERENT, "cache")


async def test_damage_between_two_engines_that_are_right_is_found_in_the_transfer():
    async with split() as (baseline, cluster):
        for nth in (PD, WARM, DIRECT):  # one more than without --decode-node: it is asked for its health by itself, too
            cluster.decodes[0].faults.add(Fault(kind="corrupt", path=CHAT, nth=nth + 1))
        result = await diagnosed(baseline, cluster, *ORDERED, *nodes(cluster))
    assert (result.exit, place(result)) == (Exit.DIFFERENT, "transfer")
    assert states(result) == {
        "prefill": "clean", "pd": "broken", "warm": "broken", "direct": "broken", "decode": "clean"
    }  # fmt: skip


async def test_a_decode_engine_that_is_wrong_by_itself_is_found():
    async with split(decode_engine={"model": NOISY}) as (baseline, cluster):
        result = await diagnosed(baseline, cluster, *nodes(cluster))
    assert (result.exit, place(result)) == (Exit.DIFFERENT, "decode")


async def test_a_prefill_engine_that_is_wrong_by_itself_is_found_though_answers_do_not_show_it():
    async with split(prefill_engine={"model": NOISY}) as (baseline, cluster):
        result = await diagnosed(baseline, cluster, *nodes(cluster))
    assert (result.exit, place(result)) == (Exit.DIFFERENT, "prefill")
    prefill = result.data["stages"][0]
    answers = [len(sample["baseline"]["tokens"]) for sample in result.data["stages"][1]["samples"]]
    assert prefill["scored_tokens"] == sum(answers)


async def test_few_first_tokens_clear_no_prefill_engine():
    async with split(decode_engine={"model": NOISY}) as (baseline, cluster):
        result = await diagnosed(baseline, cluster, "--repeats", "1", "--noise-floor", "12")
    assert (result.exit, place(result)) == (Exit.DIFFERENT, "prefill, transfer or decode")


async def test_too_few_healthy_answers_call_no_suspicious_stage_clean():
    async with split(decode_engine={"model": NOISY}) as (baseline, cluster):
        result = await diagnosed(baseline, cluster, "--repeats", "1")
    pd = next(each for each in result.data["stages"] if each["stage"] == "pd")
    assert pd["state"] == "inconclusive"
    assert "4 healthy answers are too few to tell how much answers differ" in pd["reasons"][0]


async def test_a_route_that_is_not_taken_is_not_judged():
    async with split(routing=Routing(mode="pd")) as (baseline, cluster):
        result = await diagnosed(baseline, cluster)
    assert (states(result)["direct"], routes(result, "direct")) == ("skipped", {"pd": 4})
    assert len(next(each for each in result.data["stages"] if each["stage"] == "pd")["samples"]) == 8
    assert result.exit == Exit.PASS
    assert any("direct: second turn: skipped" in note for note in result.notes)


async def test_without_a_noise_floor_other_numbers_are_inconclusive():
    async with running_engine(EngineConfig(role="aggregated", model=MODEL)) as one:
        near = replace(MODEL, engine_noise_nats=0.001)
        async with running_engine(EngineConfig(role="aggregated", model=near)) as other:
            result = await run_command(
                "diagnose", "--baseline", one.url, "--target", other.url, *SHORT, "--noise-floor", "0"
            )
    assert (result.exit, place(result)) == (Exit.INCONCLUSIVE, None)


async def test_one_model_may_be_served_under_two_names():
    async with running_engine(EngineConfig(role="aggregated", model=MODEL)) as one:
        async with running_engine(EngineConfig(role="aggregated", model=MODEL, model_name="other")) as other:
            result = await run_command("diagnose", "--baseline", one.url, "--target", other.url, *SHORT)
    assert result.exit == Exit.PASS
    assert any("model's name differs" in note for note in result.notes)


async def test_an_engine_that_is_not_there_stops_the_diagnosis():
    async with running_engine(EngineConfig(role="aggregated", model=MODEL)) as one:
        result = await run_command(
            "diagnose", "--baseline", one.url, "--target", "http://127.0.0.1:1", *SHORT, "--retries", "0"
        )
    assert (result.exit, result.data["stages"]) == (Exit.INFRASTRUCTURE, [])


async def test_requests_that_fail_leave_the_diagnosis_partial():
    async with split() as (baseline, cluster):
        cluster.decodes[0].faults.add(Fault(kind="status", path=CHAT, nth=WARM, status=400))
        result = await diagnosed(baseline, cluster, *ORDERED)
    assert (result.exit, states(result)["warm"]) == (Exit.INFRASTRUCTURE, "failed")
    assert any("--no-cache-salt" in note for note in result.notes)


async def test_without_cache_salt_none_is_sent():
    async with split() as (baseline, cluster):
        await diagnosed(baseline, cluster, "--no-cache-salt")
        sent = [*baseline.requests, *cluster.decodes[0].requests, *cluster.prefills[0].requests]
    assert not any("cache_salt" in each.body for each in sent)


@pytest.mark.parametrize(("change", "expected", "code"), [(0.0, None, 0), (0.5, "prefill or transfer", 1)])
async def test_kv_dumps_take_part(tmp_path, change, expected, code):
    keys = np.random.default_rng(1).normal(size=(2, 32, 8)).astype(np.float32)
    np.savez(tmp_path / "one.npz", layer_0_key=keys, layer_0_value=keys)
    np.savez(tmp_path / "other.npz", layer_0_key=keys, layer_0_value=keys + change)
    dumps = "--kv-baseline", str(tmp_path / "one.npz"), "--kv-target", str(tmp_path / "other.npz")
    async with split() as (baseline, cluster):
        result = await diagnosed(baseline, cluster, *ORDERED, *dumps)
    assert (result.exit, place(result), result.data["kv"]["is_match"]) == (code, expected, change == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--prompt is missing"),
        (("--prompt", "x", "--temperature", "0.5"), "--temperature is 0.5"),
        (("--prompt", "x", "--kv-baseline", "a.npz"), "--kv-baseline a.npz: no such file|--kv-target is missing"),
    ],
)
async def test_a_mistake_names_the_flag(arguments, message):
    with pytest.raises(Mistake, match=message):
        await run_command("diagnose", "--baseline", "http://a", "--target", "http://b", *arguments)
