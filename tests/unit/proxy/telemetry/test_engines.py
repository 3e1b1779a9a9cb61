from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.support.scraping import parse

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_proxy.telemetry.engines import EngineTelemetry
from ppd_wire.metrics.scraped import UNKNOWN, ConnectorFigures, EngineFigures

P, D = "10.0.0.1:8100", "10.0.0.2:8200"
GOLDEN = Path(__file__).parents[3] / "data" / "vllm" / "vllm_0_32_decode_metrics.txt"
BANDWIDTH = "ppd_kv_transfer_bandwidth_bytes_per_second"
ZERO = EngineFigures(
    process_start_s=1.0,
    prompt_local_cache=0,
    prompt_external_kv=0,
    prompt_computed=0,
    nixl_bytes=0,
    nixl_transfer_s=0,
    nixl_transfers=0,
)


def engine(engine_id, role):
    return Engine(id=engine_id, url=f"http://{engine_id}", role=role, handoff="nixl", state="up", source="static")


class World:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.engines = [engine(P, "prefill"), engine(D, "decode")]
        self.readings = Readings(engines=lambda: self.engines, load=Load())
        EngineTelemetry(self.registry, self.readings)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    def read(self, figures, now):
        self.readings.scraped(self.engines[1], figures, now)


@pytest.fixture
def world():
    return World()


# What engines tell, shown again


def test_figures_of_a_real_engine_are_shown_again(world):
    world.read(parse(GOLDEN.read_text()), 0)
    assert world.value("ppd_engine_prefix_cache_hits_total", engine=D, cache="local") == 256
    assert world.value("ppd_engine_prefix_cache_queries_total", engine=D, cache="external") == 1645
    assert world.value("ppd_engine_prompt_tokens_total", engine=D, source="external_kv") == 1588
    assert world.value("ppd_engine_requests_running", engine=D) == 0
    assert world.value("ppd_engine_kv_usage_ratio", engine=D) == 0
    assert world.value("ppd_engine_request_seconds_count", engine=D, phase="e2e") == 6
    assert world.value("ppd_engine_request_seconds_sum", engine=D, phase="queue") == pytest.approx(9.05, abs=0.01)
    assert world.value("ppd_engine_time_per_output_token_seconds_count", engine=D) == 6
    assert world.value("ppd_engine_kv_transfers_total", engine=D) == 5
    assert world.value("ppd_engine_kv_transfer_descriptors_total", engine=D) == 36
    assert world.value("ppd_engine_kv_expired_requests_total", engine=D) == 0


def test_what_an_engine_does_not_tell_is_absent_not_zero(world):
    world.read(EngineFigures(running=2), 0)
    assert world.value("ppd_engine_requests_running", engine=D) == 2
    text = generate_latest(world.registry).decode()
    assert "ppd_engine_requests_waiting{" not in text
    assert "ppd_engine_request_seconds_count{" not in text
    assert "ppd_kv_transfer_bytes_total{" not in text


def test_a_failed_scrape_takes_the_figures_away(world):
    world.read(EngineFigures(running=2), 0)
    world.read(UNKNOWN, 5)
    assert world.value("ppd_engine_requests_running", engine=D) is None


def test_series_of_an_engine_that_left_are_gone(world):
    world.read(ZERO, 0)
    world.read(replace(ZERO, nixl_bytes=100, nixl_transfer_s=1), 5)
    world.engines.pop()
    assert D not in generate_latest(world.registry).decode()


# What follows from figures and requests


def test_totals_and_rates_are_shown_by_their_labels(world):
    world.read(ZERO, 0)
    world.read(replace(ZERO, prompt_external_kv=1285, prompt_computed=5, nixl_bytes=4000, nixl_transfer_s=2), 5)
    assert world.value("ppd_prompt_tokens_total", route="pd", source="external_kv") == 1285
    assert world.value("ppd_prompt_tokens_total", route="pd", source="computed") == 5
    assert world.value("ppd_prompt_tokens_total", route="pd", source="local_cache") is None
    assert world.value("ppd_kv_transfer_bytes_total", source="measured") == 4000
    assert world.value("ppd_kv_transfer_seconds_total", source="measured") == 2
    assert world.value("ppd_kv_transfer_bytes_total", source="estimated") is None
    assert world.value(BANDWIDTH, source="measured", prefill=P, decode=D) == 2000


# What our connector tells


def test_blocks_and_failures_are_shown_by_engine(world):
    connector = ConnectorFigures(
        blocks={("recv", "moved"): 4, ("recv", "skipped"): 9},
        failures={("recv", "timeout"): 2, ("send", "timeout"): 1},
    )
    world.read(EngineFigures(connector=connector), 0)
    blocks, failures = "ppd_engine_kv_blocks_total", "ppd_engine_kv_failures_total"
    assert world.value(blocks, engine=D, direction="recv", what="moved") == 4
    assert world.value(blocks, engine=D, direction="recv", what="skipped") == 9
    assert world.value(failures, engine=D, direction="recv", reason="timeout") == 2
    assert world.value(failures, engine=D, direction="send", reason="timeout") == 1


def test_an_engine_that_invents_reasons_makes_no_endless_series(world):
    reasons = {("recv", f"reason {number}"): 1 for number in range(1000)}
    world.read(EngineFigures(connector=ConnectorFigures(failures=reasons)), 0)
    text = generate_latest(world.registry).decode()
    shown = [line for line in text.splitlines() if line.startswith("ppd_engine_kv_failures_total{")]
    assert len(shown) < 20
    named = len(shown) - 1
    others = world.value("ppd_engine_kv_failures_total", engine=D, direction="recv", reason="other")
    assert others == len(reasons) - named
