import re
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Change
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_core.policy.plan import DecisionReason
from ppd_proxy.request.record import Record
from ppd_proxy.telemetry.instruments import INSTRUMENTS
from ppd_proxy.telemetry.metrics import Metrics

P, D = "10.0.0.1:8100", "10.0.0.2:8200"


def engine(engine_id, role, state="up"):
    return Engine(id=engine_id, url=f"http://{engine_id}", role=role, handoff="nixl", state=state, source="static")


def record(**fields):
    known = {
        "request_id": "r",
        "mode": "ppd",
        "received_at": 100.0,
        "is_stream": True,
        "route": "direct",
        "reason": DecisionReason.KNOWN_HISTORY,
        "turn": 2,
        "status": 200,
        "decode_id": D,
        "handoff": "nixl",
        "prompt_tokens": 1300,
        "cached_tokens": 1280,
        "completion_tokens": 11,
        "decode_opened_at": 100.01,
        "first_token_at": 100.2,
        "last_token_at": 101.2,
        "ended_at": 101.25,
    }
    return Record(**known | fields)


class World:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.engines = [engine(P, "prefill"), engine(D, "decode")]
        self.inflight = {}
        self.conversations = 0
        self.readings = Readings(engines=lambda: self.engines, load=Load())
        self.metrics = Metrics(
            self.registry,
            readings=self.readings,
            engines=lambda: self.engines,
            inflight=lambda: self.inflight,
            conversations=lambda: self.conversations,
        )

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def world():
    return World()


def test_requests_are_counted_by_route_and_numeric_status(world):
    world.metrics.finished(record())
    world.metrics.finished(record())
    world.metrics.finished(Record(request_id="r", mode="ppd", received_at=0.0, status=413))
    assert world.value("ppd_requests_total", route="direct", status="200") == 2
    assert world.value("ppd_requests_total", route="none", status="413") == 1


def test_decisions_are_counted(world):
    world.metrics.decided("ppd", "pd", DecisionReason.FIRST_TURN)
    assert world.value("ppd_route_decisions_total", mode="ppd", route="pd", reason="first_turn") == 1


@pytest.mark.parametrize(("turn", "label"), [(1, "1"), (2, "2+"), (17, "2+")])
def test_time_to_first_token_tells_first_turns_from_later_ones(world, turn, label):
    world.metrics.finished(record(turn=turn))
    name = "ppd_time_to_first_token_seconds"
    assert world.value(f"{name}_sum", route="direct", turn=label) == pytest.approx(0.2)
    assert world.value(f"{name}_count", route="direct", turn=label) == 1
    assert world.value(f"{name}_bucket", route="direct", turn=label, le="0.15") == 0
    assert world.value(f"{name}_bucket", route="direct", turn=label, le="0.3") == 1
    assert world.value(f"{name}_bucket", route="direct", turn=label, le="+Inf") == 1


def test_inter_token_time_is_observed_once_per_answer(world):
    world.metrics.finished(record())
    assert world.value("ppd_inter_token_seconds_sum", route="direct") == pytest.approx(0.1)
    assert world.value("ppd_inter_token_seconds_count", route="direct") == 1


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"completion_tokens": 1}, id="one-token"),
        pytest.param({"completion_tokens": None}, id="no-usage"),
        pytest.param({"last_token_at": None}, id="no-last-token"),
        pytest.param({"is_stream": False, "first_token_at": None, "last_token_at": None}, id="json"),
    ],
)
def test_inter_token_time_needs_two_timed_tokens(world, fields):
    world.metrics.finished(record(**fields))
    assert world.value("ppd_inter_token_seconds_count", route="direct") is None
    assert world.value("ppd_request_seconds_sum", route="direct") == pytest.approx(1.25)


def test_kv_that_was_freed_and_kv_that_was_left_are_told_apart(world):
    assert world.value("ppd_kv_stranded_total") == 0
    world.metrics.kv_released()
    world.metrics.kv_released()
    world.metrics.kv_stranded()
    assert world.value("ppd_kv_released_total") == 2
    assert world.value("ppd_kv_stranded_total") == 1


def test_engine_changes_are_counted_by_role(world):
    world.metrics.engine_changed(Change(engine=world.engines[1], what="down", why="3 missed probes"))
    assert world.value("ppd_engine_changes_total", role="decode", change="down") == 1


def test_rejected_announcements_cannot_make_endless_series(world):
    for number in range(100):
        world.metrics.announcement_rejected(f"word{number}")
    text = generate_latest(world.registry).decode()
    assert len(re.findall(r"^ppd_announcements_rejected_total\{", text, re.M)) == 17
    assert world.value("ppd_announcements_rejected_total", reason="word3") == 1
    assert world.value("ppd_announcements_rejected_total", reason="other") == 84


def test_gauges_are_read_when_metrics_are(world):
    world.inflight[D] = 3
    world.conversations = 42
    assert world.value("ppd_inflight", engine=D) == 3
    assert world.value("ppd_inflight", engine=P) == 0
    assert world.value("ppd_conversations") == 42
    world.inflight[D] = 1
    assert world.value("ppd_inflight", engine=D) == 1


def test_engine_up_is_0_only_while_an_engine_is_down_and_gone_when_it_left(world):
    world.engines[:] = [engine(P, "prefill", "down"), engine(D, "decode", "draining")]
    assert world.value("ppd_engine_up", engine=P, role="prefill") == 0
    assert world.value("ppd_engine_up", engine=D, role="decode") == 1
    world.engines.pop()
    assert world.value("ppd_engine_up", engine=D, role="decode") is None
    assert world.value("ppd_inflight", engine=D) is None


def test_prompt_tokens_of_direct_and_aggregated_come_from_usage(world):
    world.readings.finished(record())
    world.readings.finished(record(route="aggregated", prompt_tokens=100, cached_tokens=0))
    world.readings.finished(record(route="aggregated", prompt_tokens=7, cached_tokens=None))
    name = "ppd_prompt_tokens_total"
    assert world.value(name, route="direct", source="local_cache") == 1280
    assert world.value(name, route="direct", source="computed") == 20
    assert world.value(name, route="aggregated", source="computed") == 100
    assert world.value(name, route="aggregated", source="unknown") == 7
    assert world.value(name, route="aggregated", source="local_cache") is None


def test_what_a_client_sends_never_becomes_a_label(world):
    world.metrics.finished(record(request_id="SECRET", error="SECRET"))
    world.readings.finished(record(request_id="SECRET", error="SECRET"))
    assert b"SECRET" not in generate_latest(world.registry)


def test_every_exposed_name_and_label_is_in_the_table(world):
    world.metrics.finished(record())
    world.readings.finished(record())
    world.metrics.decided("ppd", "pd", "first_turn")
    table = {instrument.name: instrument for instrument in INSTRUMENTS}
    assert len(table) == len(INSTRUMENTS)
    for family in world.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert (family.type, family.documentation) == (table[name].kind, table[name].help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(table[name].labels)


def test_a_registry_can_hold_only_one_set(world):
    other = replace(world.engines[0], id="10.0.0.9:1")
    second = CollectorRegistry()
    Metrics(second, readings=world.readings, engines=lambda: [other], inflight=dict, conversations=lambda: 0)
    assert second.get_sample_value("ppd_inflight", {"engine": other.id}) == 0
    assert world.value("ppd_inflight", engine=other.id) is None
