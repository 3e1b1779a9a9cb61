"""detect: conclusions from what is told, and none from silence."""

from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.acc.commands import run_command

from ppd_acc.ask.detection import Sign, conclude
from ppd_acc.outcome import Exit
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault


@asynccontextmanager
async def serving(**answers):
    """A server that answers these paths (_ for /) with a text or with JSON, and 404 elsewhere."""
    app = web.Application()

    def route(answer):
        async def handler(_):
            return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)

        return handler

    for name, answer in answers.items():
        app.router.add_get("/" + name, route(answer))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


async def kind_of(**answers):
    async with serving(**answers) as url:
        result = await run_command("detect", url)
    assert result.exit == Exit.PASS
    return result.data["endpoints"][0]["kind"]


def vllm(*lines):
    return "\n".join(("vllm:num_requests_running 0", *lines, ""))


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        (vllm(), "unknown"),
        (vllm("vllm:nixl_xfer_time_seconds_count 3"), "decode"),
        (vllm("vllm:nixl_xfer_time_seconds_count 0", "vllm:nixl_num_kv_expired_reqs_total 2"), "prefill"),
        (vllm('vllm:ppd_kv_transfers_total{direction="send"} 4'), "prefill"),
        (vllm('vllm:ppd_kv_transfers_total{direction="recv"} 4'), "decode"),
        (vllm('vllm:prompt_tokens_by_source_total{source="external_kv_transfer"} 80'), "decode"),
        (vllm('vllm:prompt_tokens_by_source_total{source="local_compute"} 80'), "unknown"),
        (vllm('vllm:request_success_total{finished_reason="length"} 20', "vllm:generation_tokens_total 20"), "prefill"),
        (vllm('vllm:request_success_total{finished_reason="length"} 2', "vllm:generation_tokens_total 2"), "unknown"),
        (vllm('vllm:request_success_total{finished_reason="stop"} 20', "vllm:generation_tokens_total 900"), "unknown"),
        ("ppd_route_decisions_total 1\n", "ppd-proxy"),
        ("vllm:healthy_pods_total 2\nvllm:num_prefill_requests 0\n", "router"),
        ("this is { not a metric", "unknown"),
    ],
)
async def test_metrics_are_signs(metrics, kind):
    assert await kind_of(metrics=metrics) == kind


@pytest.mark.parametrize(
    ("transfer", "kind"),
    [
        (None, "aggregated"),
        ({"kv_connector": "NixlConnector", "kv_role": "kv_both"}, "unknown"),
        ({"kv_connector": "P2pNcclConnector", "kv_role": "kv_producer"}, "prefill"),
        ({"kv_connector": "P2pNcclConnector", "kv_role": "kv_consumer"}, "decode"),
    ],
)
async def test_an_engine_that_shows_its_configuration_is_believed(transfer, kind):
    assert await kind_of(metrics=vllm(), server_info={"vllm_config": {"kv_transfer_config": transfer}}) == kind


async def test_a_configuration_that_does_not_mention_transfer_says_nothing():
    assert await kind_of(server_info={"vllm_config": "text, as vLLM shows it by default"}) == "unknown"


@pytest.mark.parametrize(("mode", "kind"), [("null", "aggregated"), ("prefill", "prefill"), ("decode", "decode")])
async def test_sglang_tells_its_mode(mode, kind):
    assert await kind_of(get_server_info={"disaggregation_mode": mode}) == kind


async def test_signs_of_both_roles_are_not_guessed_between():
    both = vllm('vllm:ppd_kv_transfers_total{direction="send"} 4', 'vllm:ppd_kv_transfers_total{direction="recv"} 4')
    async with serving(metrics=both) as url:
        (found,) = (await run_command("detect", url)).data["endpoints"]
    assert found["kind"] == "unknown"
    assert "prefill and of decode" in found["statement"]


async def test_what_is_alive_and_says_nothing_is_unknown():
    async with serving(health="") as url:
        (found,) = (await run_command("detect", url)).data["endpoints"]
    assert (found["kind"], found["signs"]) == ("unknown", ())
    assert "unsplit as far as it shows" in found["statement"]


@pytest.mark.parametrize("role", ["prefill", "decode", "aggregated"])
async def test_a_simulated_engine_tells_its_role(role):
    async with running_engine(EngineConfig(role=role)) as engine:
        result = await run_command("detect", "--url", engine.url)
        assert engine.requests == [], "a generation request could end a stock P2pNccl engine"
    assert result.data["endpoints"][0]["kind"] == role


async def test_an_engine_is_asked_for_kv_only_with_leave():
    async with running_engine(EngineConfig(role="prefill")) as engine:
        result = await run_command("detect", engine.url, "--ask")
        assert [each.body["max_tokens"] for each in engine.requests] == [1]
    assert any("holds KV" in sign["told"] for sign in result.data["endpoints"][0]["signs"])


async def test_an_engine_that_refuses_to_hand_over_is_still_described():
    async with running_engine(EngineConfig(role="prefill")) as engine:
        engine.faults.add(Fault(kind="status", path="/v1/completions"))
        result = await run_command("detect", engine.url, "--ask")
    assert (result.exit, result.data["endpoints"][0]["kind"]) == (Exit.PASS, "prefill")


async def test_a_proxy_wins_over_what_it_passes_on():
    signs = [Sign(source="/metrics", told="x", says="ppd-proxy"), Sign(source="/engines", told="y", says="prefill")]
    assert conclude(signs)[0] == "ppd-proxy"


async def test_what_cannot_be_reached_is_infrastructure():
    result = await run_command("detect", "http://127.0.0.1:1")
    assert (result.exit, list(result.data["failures"])) == (Exit.INFRASTRUCTURE, ["http://127.0.0.1:1"])
