"""Samples of live requests are held against a baseline, and clients notice nothing."""

from __future__ import annotations

import asyncio
import json
import threading  # noqa: TID251 - the test holds a thread up
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.support.cluster import LIMIT_S, Cluster, running_cluster, until, user
from tests.support.journal import directly, row
from tests.support.noise import PROMPT_TOKENS, inject_floor

from ppd_accuracy.answers.scores import Statistics
from ppd_accuracy.verdicts.noise import Reference, reference_of
from ppd_core.policy.plan import DecisionReason
from ppd_proxy.config.sections import Limits, Shadow
from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.request.sampling import Answered, candidate_of
from ppd_proxy.shadow.journal import Journal
from ppd_proxy.shadow.sample import Sample, is_sampled
from ppd_sim.config import EngineConfig
from ppd_sim.engine import SimEngine, running_engine
from ppd_sim.faults import Fault
from ppd_sim.model.model import ModelConfig
from ppd_wire.answers.candidate import Candidate

NOISE = ModelConfig(prefill_noise_nats=0.01)
LEAST = 50
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/accuracy.schema.json").read_text())


@asynccontextmanager
async def shadowed(*, limits: Limits | None = None, **settings: Any) -> AsyncIterator[tuple[Cluster, SimEngine]]:
    """A split cluster that samples every request, and its baseline; all engines decode and prefill a little apart."""
    values = {"shadow_rate": 1.0, "shadow_noise_samples": LEAST, "guard": "off", **settings}
    engine = {"model": NOISE}
    async with running_engine(EngineConfig(role="aggregated", model=NOISE)) as baseline:
        async with running_cluster(
            engine=engine, limits=limits or Limits(), shadow=Shadow(baseline=(baseline.url,), **values)
        ) as cluster:
            yield cluster, baseline


def shadow(cluster: Cluster) -> Any:
    assert cluster.runtime.accuracy is not None
    return cluster.runtime.accuracy.shadow


async def ask_many(cluster: Cluster, count: int, start: int = 0, **fields: Any) -> list[Any]:
    """Different first turns, a few at a time."""
    limit = asyncio.Semaphore(8)

    async def one(number: int) -> Any:
        async with limit:
            text = f"question {number}: what, of all things, would you say that this is about, and why?"
            return await cluster.complete(text, max_tokens=12, **fields)

    return list(await asyncio.gather(*(one(number) for number in range(start, start + count))))


async def settle(cluster: Cluster) -> None:
    await until(lambda: shadow(cluster).waiting == 0 and shadow(cluster).checking == 0)


async def calibrate(cluster: Cluster) -> None:
    """As operators do; all others inject the noise floor that would come of it."""
    await ask_many(cluster, 60, start=10_000)
    await settle(cluster)
    reply = await cluster.ask("/accuracy/calibrate?samples=200", {})
    assert reply.status == 200, reply.body
    await until(lambda: not shadow(cluster).calibrating)
    await settle(cluster)


async def summary(cluster: Cluster) -> dict[str, Any]:
    """As it must be whatever the state: every summary of these tests is held against the schema."""
    told: dict[str, Any] = (await cluster.ask("/accuracy")).json
    jsonschema.validate(told, SCHEMA)
    return told


async def kept_sample(cluster: Cluster, sample_id: str) -> dict[str, Any]:
    """A judged sample as the journal has it."""
    await shadow(cluster).ledger.flush()
    kept = await cluster.ask(f"/accuracy/samples/{sample_id}")
    assert kept.status == 200
    found: dict[str, Any] = kept.json
    return found


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {scope["scope"]: scope["verdict"] for scope in told["scopes"]}


async def test_healthy_answers_are_judged_and_turn_green() -> None:
    async with shadowed(shadow_tolerance=0.1) as (cluster, _):
        await calibrate(cluster)
        await ask_many(cluster, 300)
        await settle(cluster)
        told = await summary(cluster)
        pair = f"pair:{cluster.prefill.http_address}>{cluster.decode.http_address}"
        assert verdicts(told) == {"all": "green", "route:pd": "green", pair: "green"}
        assert sum(told["outcomes"]["pd"].values()) == 360
        assert told["noise"][0]["thresholds"]["far_delta"] > 0
        metrics = await cluster.samples()
        assert metrics['ppd_shadow_verdict{scope="all",verdict="green"}'] == 1
        assert metrics['ppd_shadow_samples_total{outcome="exact",route="pd"}'] > 200


async def test_damaged_kv_turns_its_pair_red() -> None:
    async with shadowed() as (cluster, _):
        await inject_floor(cluster, 1000)
        cluster.decode.faults.add(Fault(kind="corrupt", probability=0.2))
        await ask_many(cluster, 150)
        await settle(cluster)
        told = await summary(cluster)
        pair = f"pair:{cluster.prefill.http_address}>{cluster.decode.http_address}"
        assert verdicts(told)[pair] == "red"
        assert verdicts(told)["route:pd"] == "red"
        (scope,) = (each for each in told["scopes"] if each["scope"] == pair)
        assert scope["advice"]


async def test_nothing_is_judged_before_the_noise_is_known_and_all_of_it_afterwards() -> None:
    async with shadowed(shadow_noise_samples=60) as (cluster, _):
        await ask_many(cluster, 30)
        await settle(cluster)
        told = await summary(cluster)
        assert told["parked"] == 30
        assert told["outcomes"] == {}
        await cluster.ask("/accuracy/calibrate?samples=60", {})
        await until(lambda: shadow(cluster).parked == 0)
        await settle(cluster)
        assert sum((await summary(cluster))["outcomes"]["pd"].values()) == 30


async def test_clients_have_their_turns_while_a_noise_floor_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, answered = threading.Event(), threading.Event()

    def slowly(samples: Iterable[Statistics]) -> Reference:
        begun.set()
        assert answered.wait(LIMIT_S), "nobody was answered meanwhile"
        return reference_of(samples)

    monkeypatch.setattr("ppd_proxy.shadow.shadow.reference_of", slowly)
    monkeypatch.setattr("ppd_accuracy.verdicts.noise.reference_of", slowly)
    async with shadowed(shadow_rate=0.0) as (cluster, _):
        making = asyncio.get_running_loop().create_task(inject_floor(cluster, LEAST))
        try:
            await until(begun.is_set)
            assert (await cluster.complete("does anybody answer?")).status == 200
        finally:
            answered.set()
            await making
        assert (await summary(cluster))["noise"][0]["thresholds"]["samples"] == LEAST


async def test_a_baseline_that_is_down_costs_samples_and_no_answer() -> None:
    async with shadowed() as (cluster, baseline):
        baseline.kill()
        answers = await ask_many(cluster, 10)
        assert {answer.status for answer in answers} == {200}
        await settle(cluster)
        told = await summary(cluster)
        assert told["dropped"] == {"baseline_down": 10}
        assert (await cluster.samples())['ppd_shadow_dropped_total{reason="baseline_down"}'] == 10


async def test_a_slow_baseline_costs_samples_and_delays_nobody() -> None:
    async with shadowed(shadow_timeout_s=0.05, shadow_concurrency=1, shadow_queue=2) as (cluster, baseline):
        baseline.faults.add(Fault(kind="hang"))
        answers = await asyncio.wait_for(ask_many(cluster, 10), LIMIT_S)
        assert {answer.status for answer in answers} == {200}
        await settle(cluster)
        dropped = (await summary(cluster))["dropped"]
        assert sum(dropped.values()) == 10
        assert set(dropped) <= {"baseline_slow", "queue_full"}


@pytest.mark.parametrize(
    ("settings", "reason"), [({"shadow_queue": 2}, "queue_full"), ({"shadow_max_body_bytes": 40}, "body_too_large")]
)
async def test_no_answer_is_read_for_a_sample_that_would_be_dropped(
    settings: dict[str, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Answered] = []

    def watched(ongoing: Ongoing, leg: Answered) -> Candidate | None:
        read.append(leg)
        return candidate_of(ongoing, leg)

    monkeypatch.setattr("ppd_proxy.request.sampling.candidate_of", watched)
    async with shadowed(shadow_concurrency=1, **settings) as (cluster, baseline):
        baseline.faults.add(Fault(kind="hang"))
        for number in range(6):
            assert (await cluster.complete(f"question {number}")).status == 200
        await until(lambda: shadow(cluster).drops[reason] + len(read) == 6)
        assert len(read) == (3 if reason == "queue_full" else 0)  # one is being checked, two wait


async def test_a_clients_key_never_reaches_a_baseline() -> None:
    async with shadowed(baseline_api_key="own-key") as (cluster, baseline):
        await cluster.complete("hello there", headers={"authorization": "Bearer client-key", "x-secret": "mine"})
        await settle(cluster)
        told = json.dumps([dict(each.headers) for each in baseline.requests]).lower()
        assert "own-key" in told
        assert "client-key" not in told
        assert "mine" not in told


async def test_no_client_chooses_what_is_checked() -> None:
    """Ids of which all would be in the sample, and one of which none would: neither changes the share."""
    chosen = [name for name in map(str, range(3000)) if is_sampled(name, 0.1)][:120]
    left_out = next(name for name in map(str, range(100)) if not is_sampled(name, 0.9))
    for names in (chosen, [left_out] * 120):
        async with shadowed(shadow_rate=0.1 if names is chosen else 0.9) as (cluster, _):
            for name in names:
                await cluster.complete("n", max_tokens=1, headers={"x-request-id": name})
            await settle(cluster)
            told = await summary(cluster)
            taken = told["parked"] + sum(sum(each.values()) for each in told["outcomes"].values())
            assert taken < 60 if names is chosen else taken > 60


async def test_the_rate_changes_while_running() -> None:
    async with shadowed() as (cluster, _):
        assert (await cluster.ask("/accuracy/rate/0", {})).json == {"rate": 0}
        await ask_many(cluster, 5)
        assert (await summary(cluster))["parked"] == 0
        refused = await cluster.ask("/accuracy/rate/2", {})
        assert refused.status == 400
        assert "rate: '2' is not a share from 0 to 1" in refused.error["message"]


async def test_a_logprob_that_is_no_number_is_judged_and_the_client_gets_an_answer() -> None:
    """vLLM 0.32 cannot write it and answers 400, for what only the proxy has asked."""
    message = "Out of range float values are not JSON compliant"
    body = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
    async with shadowed() as (cluster, _):
        await inject_floor(cluster, LEAST)
        await cluster.complete("what is a number?")
        cluster.decode.faults.add(Fault(kind="status", status=400, body=body, times=1))
        answer = await cluster.complete("what is no number?")
        assert (answer.status, answer.reason) == (200, "decode_failed")
        await settle(cluster)
        assert (await summary(cluster))["outcomes"]["pd"]["diverged"] >= 1
        asked = [request.body for request in cluster.decode.requests]  # without the one that failed
        assert ["logprobs" in each for each in asked] == [True, False]


async def test_a_logprob_that_is_no_number_costs_the_client_no_try() -> None:
    body = {"error": {"message": "Out of range float values are not JSON compliant", "code": 400}}
    async with shadowed(limits=Limits(retries=0)) as (cluster, _):
        await inject_floor(cluster, LEAST)
        cluster.decode.faults.add(Fault(kind="status", status=400, body=body, times=1))
        assert (await cluster.complete("what is no number?")).status == 200
        assert (await summary(cluster))["outcomes"]["pd"]["diverged"] >= 1


async def test_the_same_error_is_the_clients_own_where_it_asked_for_logprobs() -> None:
    body = {"error": {"message": "Out of range float values are not JSON compliant", "code": 400}}
    async with shadowed() as (cluster, _):
        cluster.decode.faults.add(Fault(kind="status", status=400, body=body, times=1))
        assert (await cluster.complete("what is no number?", logprobs=1)).status == 400


async def test_what_cannot_be_scored_is_replayed_where_it_can_be_repeated() -> None:
    async with shadowed() as (cluster, _):
        await inject_floor(cluster, LEAST)
        image = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ]
        before = (await summary(cluster))["cost"].get("replay", {"checks": 0})["checks"]
        await cluster.chat([user(image)])
        await cluster.chat([user(image)], temperature=0.9)
        await settle(cluster)
        told = await summary(cluster)
        assert told["cost"]["replay"]["checks"] == before + 1
        assert told["outcomes"]["pd"]["unscorable"] == 1


async def test_samples_are_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with shadowed(journal=str(path)) as (cluster, _):
        await inject_floor(cluster, LEAST)
        await ask_many(cluster, 9)
        reply = await cluster.complete("what is in the journal?", headers={"x-request-id": "mine"})
        assert reply.status == 200
        await settle(cluster)
        sample = await kept_sample(cluster, "mine")
        assert sample["route"] == "pd"
        assert len(sample["token_ids"]) == len(sample["baseline_logprobs"]) == 20
        listed = (await cluster.ask("/accuracy/samples?limit=5&route=pd")).json["samples"]
        assert len(listed) == 5
        assert (await cluster.ask("/accuracy/samples/none")).status == 404
        assert (await cluster.ask("/accuracy/samples?limit=0")).status == 400


async def test_what_is_too_old_leaves_the_journal_of_a_proxy_that_nobody_asks(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    earlier = await Journal.open(path, max_rows=10, max_age_s=1e12, storage="text")
    earlier.add(row(at=1000.0))  # of 1970
    await earlier.close()
    async with shadowed(journal=str(path)):
        await until(lambda: directly(path, "SELECT count(*) FROM samples") == [(0,)])


async def test_a_guard_that_acts_takes_the_pair_out_and_answers_go_on() -> None:
    async with shadowed(guard="act") as (cluster, _):
        await inject_floor(cluster, 1000)
        cluster.decode.faults.add(Fault(kind="corrupt", probability=0.3))
        reasons: list[str] = []
        for start in range(0, 300, 20):
            reasons += [answer.reason for answer in await ask_many(cluster, 20, start=start)]
            await settle(cluster)
        told = await summary(cluster)
        kinds = {action["kind"] for action in told["guard"]["in_force"]}
        assert "distrust_pair" in kinds
        assert reasons[0] == "first_turn"
        assert reasons[-1] in ("split_distrusted", "distrusted_anyway")
        pair = f"pair:{cluster.prefill.http_address}>{cluster.decode.http_address}"
        trusted = await cluster.ask(f"/accuracy/trust?scope={pair}", {})
        assert trusted.status == 200, trusted.body
        assert (await summary(cluster))["guard"]["in_force"] == []


async def test_a_guard_that_alerts_changes_nothing() -> None:
    async with shadowed(guard="alert") as (cluster, _):
        await inject_floor(cluster, 1000)
        cluster.decode.faults.add(Fault(kind="corrupt", probability=0.3))
        answers = await ask_many(cluster, 150)
        await settle(cluster)
        assert {answer.reason for answer in answers} == {"first_turn"}
        assert (await cluster.samples())['ppd_guard_actions_total{action="would_act"}'] >= 1
        assert (await summary(cluster))["guard"]["in_force"] == []


@pytest.mark.parametrize("mode", ["off", "alert"])
async def test_a_red_pair_that_stays_in_use_hides_no_turn_of_another(mode: str) -> None:
    async with shadowed(guard=mode) as (cluster, _):
        await inject_floor(cluster, 1000)
        cluster.decode.faults.add(Fault(kind="corrupt", probability=0.3))
        await ask_many(cluster, 150)
        await settle(cluster)
        decode_id = cluster.decode.http_address
        assert verdicts(await summary(cluster))[f"pair:{cluster.prefill.http_address}>{decode_id}"] == "red"
        nothing = Candidate(
            prompt_token_ids=None, token_ids=[], logprobs=[], tops=[], finish_reason=None, text="", tool_calls=[]
        )
        turn = Sample(
            id="i", at=0.0, kind="chat", path="/v1/chat/completions", fields={}, body=b"{}", model="", route="pd",
            reason=DecisionReason.FIRST_TURN, turn=1, prefill_id="other", decode_id=decode_id, filled_by=("other",),
            sampling="greedy", is_scorable=False, prompt_tokens=PROMPT_TOKENS, candidate=nothing,
        )  # fmt: skip
        shadow(cluster).broke(turn)
        assert len(shadow(cluster).verdicts.window(f"pair:other>{decode_id}")) == 1


async def test_without_a_baseline_nothing_claims_that_all_is_well() -> None:
    async with running_cluster() as cluster:
        reply = await cluster.ask("/accuracy")
        assert reply.status == 404
        assert "--baseline" in reply.error["message"]
        assert not [name for name in await cluster.samples() if name.startswith("ppd_shadow")]


@pytest.mark.parametrize("path", ["/accuracy/trust?scope=pair:a>b", "/accuracy/reset?scope=pair:a>b"])
async def test_an_unknown_scope_is_named(path: str) -> None:
    async with shadowed() as (cluster, _):
        reply = await cluster.ask(path, {})
        assert reply.status == 400
        assert "scope: 'pair:a>b'" in reply.error["message"]


async def test_calibrating_without_a_sample_says_what_is_missing() -> None:
    async with shadowed() as (cluster, _):
        reply = await cluster.ask("/accuracy/calibrate", {})
        assert reply.status == 409
        assert "send requests through the proxy first" in reply.error["message"]
