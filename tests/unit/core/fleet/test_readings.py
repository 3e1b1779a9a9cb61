from dataclasses import replace

import pytest

from ppd_core.fleet.drafts import WINDOW_S
from ppd_core.fleet.engine import Engine
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_core.policy.plan import DecisionReason
from ppd_proxy.request.record import Record
from ppd_wire.metrics.scraped import UNKNOWN, ConnectorFigures, EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

P, P2, D, BASELINE = "10.0.0.1:8100", "10.0.0.3:8100", "10.0.0.2:8200", "10.0.0.9:8300"
ZERO = EngineFigures(
    process_start_s=1.0,
    prompt_local_cache=0,
    prompt_external_kv=0,
    prompt_computed=0,
    nixl_bytes=0,
    nixl_transfer_s=0,
    nixl_transfers=0,
)
NONE, TEN = SpecCounters(0, 0, 0, (0, 0, 0)), SpecCounters(10, 30, 14, (8, 5, 1))
NO_NIXL = EngineFigures(process_start_s=1.0, running=0)
P_ZMQ, P2_ZMQ, D_ZMQ = "10.0.0.1:21001", "10.0.0.3:21001", "10.0.0.2:22001"


def engine(engine_id, role, **facts):
    known = {"id": engine_id, "url": f"http://{engine_id}", "role": role, "handoff": "nixl", "state": "up"}
    return Engine(**known | {"source": "static"} | facts)


def ppd_engine(engine_id, role, zmq_address):
    return engine(engine_id, role, handoff="p2p_nccl", source="announced", zmq_address=zmq_address, is_ppd=True)


def received(kv_bytes, seconds, **others):
    """A reading of an engine with our connector: what it received by peer."""
    received_bytes = {("recv", peer): value for peer, value in kv_bytes.items()}
    received_s = {("recv", peer): value for peer, value in seconds.items()}
    connector = ConnectorFigures(received_bytes=received_bytes, received_s=received_s, **others)
    return replace(NO_NIXL, connector=connector)


class World:
    def __init__(self, **options):
        self.engines = [engine(P, "prefill"), engine(D, "decode")]
        self.baseline = engine(BASELINE, "aggregated")
        self.load = Load()
        self.readings = Readings(
            engines=lambda: self.engines, load=self.load, baselines=lambda: [self.baseline], **options
        )

    def tokens(self, route):
        sources = ("local_cache", "external_kv", "computed", "unknown")
        return tuple(self.readings.prompt_tokens.get((route, source), 0) for source in sources)

    def kv_bytes(self, origin):
        return self.readings.transfers.kv_bytes.get(origin)

    def seconds(self, origin):
        return self.readings.transfers.seconds.get(origin)

    def rate(self, origin, prefill):
        return self.readings.rates().get((origin, prefill, D))

    def read(self, figures, now, engine_id=D):
        self.readings.scraped(next(known for known in self.engines if known.id == engine_id), figures, now)

    def pd(self, prefill_id=P, opened_at=1.0, **fields):
        self.finish(route="pd", prefill_id=prefill_id, opened_at=opened_at, **fields)

    def finish(self, *, route, opened_at=1.0, prompt_tokens=1000, cached_tokens=0, handoff="nixl", **fields):
        self.readings.finished(
            Record(
                request_id="r",
                mode="ppd",
                received_at=opened_at - 0.1,
                is_stream=True,
                route=route,
                reason=DecisionReason.FIRST_TURN,
                status=200,
                decode_id=D,
                handoff=handoff,
                prompt_tokens=prompt_tokens,
                cached_tokens=cached_tokens,
                decode_opened_at=opened_at,
                first_token_at=opened_at + 0.5,
                **fields,
            )
        )


@pytest.fixture
def world():
    return World()


@pytest.fixture
def ppd_world():
    """Two prefill engines and a decode engine with our connector; estimates are possible."""
    world = World(kv_bytes_per_token=100)
    world.engines = [ppd_engine(P, "prefill", P_ZMQ), ppd_engine(D, "decode", D_ZMQ), ppd_engine(P2, "prefill", P2_ZMQ)]
    return world


# Figures


def test_figures_are_those_of_the_newest_reading_in_order_of_ids(world):
    world.read(EngineFigures(running=2), 0)
    world.read(EngineFigures(running=3), 5)
    world.read(EngineFigures(running=1), 5, P)
    assert list(world.readings.latest().items()) == [(P, EngineFigures(running=1)), (D, EngineFigures(running=3))]


def test_after_a_failed_scrape_nothing_old_looks_current(world):
    world.read(EngineFigures(running=2), 0)
    world.read(UNKNOWN, 5)
    world.read(UNKNOWN, 5, P)
    assert world.readings.latest() == {D: UNKNOWN}


def test_an_engine_that_left_is_forgotten(world):
    world.read(replace(ZERO, spec=NONE), 0)
    world.read(replace(ZERO, spec=TEN, nixl_bytes=100, nixl_transfer_s=1), 5)
    left = world.engines.pop()
    world.readings.forget(D)
    world.readings.scraped(left, ZERO, 6)  # was under way when the engine left
    world.engines.append(left)
    assert (world.readings.latest(), world.readings.drafts(), world.readings.rates()) == ({}, {}, {})
    assert world.kv_bytes("measured") == 100


def test_rates_are_told_of_engines_of_the_fleet_only(world):
    world.read(ZERO, 0)
    world.read(replace(ZERO, nixl_bytes=100, nixl_transfer_s=1), 5)
    assert world.readings.rates() == {("measured", P, D): 100}
    del world.engines[0]
    assert world.readings.rates() == {}


# Where prompt tokens came from


def test_pd_tokens_come_from_the_decode_engine_and_are_not_counted_twice(world):
    world.read(ZERO, 0)
    world.pd(prompt_tokens=1290)
    assert world.tokens("pd") == (0, 0, 0, 0)
    world.read(replace(ZERO, prompt_external_kv=1285, prompt_computed=5), 5)
    assert world.tokens("pd") == (0, 1285, 5, 0)


def test_direct_tokens_are_taken_off_pds_share(world):
    world.read(ZERO, 0)
    world.finish(route="direct", prompt_tokens=1313, cached_tokens=1280)
    world.read(replace(ZERO, prompt_local_cache=1280, prompt_external_kv=700, prompt_computed=40), 5)
    assert world.tokens("direct") == (1280, 0, 33, 0)
    assert world.tokens("pd") == (0, 700, 7, 0)


def test_a_direct_request_in_flight_while_its_engine_is_read_is_not_pds(world):
    world.read(ZERO, 0)
    request = world.load.reserve(D, 1)
    counted = replace(ZERO, prompt_local_cache=1280, prompt_computed=33)
    world.read(counted, 5)
    request.release()
    world.finish(route="direct", prompt_tokens=1313, cached_tokens=1280)
    world.read(counted, 10)
    assert world.tokens("pd") == (0, 0, 0, 0)
    assert world.tokens("direct") == (1280, 0, 33, 0)


def test_what_an_engine_counted_before_its_first_reading_is_nobodys(world):
    world.read(replace(ZERO, prompt_external_kv=9999), 0)
    world.read(replace(ZERO, prompt_external_kv=10000), 5)
    assert world.tokens("pd") == (0, 1, 0, 0)


def test_a_restarted_engine_counts_from_zero_again(world):
    world.read(replace(ZERO, prompt_external_kv=9999), 0)
    world.read(replace(ZERO, prompt_external_kv=20, process_start_s=2.0), 5)
    assert world.tokens("pd") == (0, 20, 0, 0)


def test_what_happened_during_an_outage_of_scraping_is_counted_after_it(world):
    world.read(ZERO, 0)
    world.read(UNKNOWN, 5)
    world.pd()
    world.read(replace(ZERO, prompt_external_kv=1000), 10)
    assert world.tokens("pd") == (0, 1000, 0, 0)


@pytest.mark.parametrize("is_read", [False, True])
def test_pd_tokens_are_unknown_where_the_engine_does_not_tell(world, is_read):
    if is_read:
        world.read(NO_NIXL, 0)
    world.pd(prompt_tokens=1290)
    assert world.tokens("pd") == (0, 0, 0, 1290)


def test_a_pd_request_that_got_no_kv_is_split_by_its_usage(world):
    world.read(NO_NIXL, 0)
    world.pd(prompt_tokens=100, cached_tokens=64, has_kv=False)
    assert world.tokens("pd") == (64, 0, 36, 0)


# KV transfers


def test_measured_transfers_are_added_up_from_the_second_reading_on(world):
    world.read(replace(ZERO, nixl_bytes=5000, nixl_transfer_s=1), 0)
    assert world.kv_bytes("measured") == 0
    world.read(replace(ZERO, nixl_bytes=9000, nixl_transfer_s=3), 5)
    assert world.kv_bytes("measured") == 4000
    assert world.seconds("measured") == 2
    assert world.kv_bytes("estimated") is None


def test_bandwidth_names_the_only_prefill_engine_there_is(world):
    world.read(ZERO, 0)
    world.read(replace(ZERO, nixl_bytes=4000, nixl_transfer_s=2), 5)
    assert world.rate("measured", P) == 2000


@pytest.mark.parametrize(
    ("used", "label"),
    [
        pytest.param([P2, P2], P2, id="one"),
        pytest.param([P, P2], "several", id="two"),
        pytest.param([], "several", id="none-finished"),
    ],
)
def test_bandwidth_names_the_prefill_engine_if_only_one_was_used(world, used, label):
    world.engines.insert(0, engine(P2, "prefill"))
    world.read(ZERO, 0)
    for prefill_id in used:
        world.pd(prefill_id=prefill_id)
    world.read(replace(ZERO, nixl_bytes=4000, nixl_transfer_s=2), 5)
    assert world.rate("measured", label) == 2000


def test_bandwidth_stays_that_of_the_last_interval_with_transfers(world):
    world.read(ZERO, 0)
    busy = replace(ZERO, nixl_bytes=4000, nixl_transfer_s=2)
    world.read(busy, 5)
    world.read(busy, 10)
    assert world.rate("measured", P) == 2000
    world.read(replace(ZERO, nixl_bytes=10000, nixl_transfer_s=4), 15)
    assert world.rate("measured", P) == 3000


def test_transfers_are_estimated_where_the_engine_measures_nothing():
    world = World(kv_bytes_per_token=100)
    world.read(NO_NIXL, 0)
    world.pd()
    world.pd()
    world.read(NO_NIXL, 5)
    assert world.kv_bytes("estimated") == 200_000
    assert world.seconds("estimated") == pytest.approx(1.0)
    assert world.rate("estimated", P) == pytest.approx(200_000)


@pytest.mark.parametrize(
    ("options", "handoff", "is_estimated"),
    [
        pytest.param({"kv_bytes_per_token": 100}, "nixl", False, id="nixl-figures-are-about-to-come"),
        pytest.param({"kv_bytes_per_token": 100}, "p2p_nccl", True, id="p2p-nccl-never-measures"),
        pytest.param({"kv_bytes_per_token": 100, "is_scraping": False}, "nixl", True, id="nobody-reads"),
        pytest.param({}, "p2p_nccl", False, id="size-of-a-token-not-known"),
    ],
)
def test_before_the_first_reading_only_what_cannot_be_measured_is_estimated(options, handoff, is_estimated):
    world = World(**options)
    world.pd(handoff=handoff)
    assert (world.kv_bytes("estimated") is not None) == is_estimated


def test_an_engine_that_ever_measured_is_never_estimated():
    world = World(kv_bytes_per_token=100)
    world.read(ZERO, 0)
    world.read(UNKNOWN, 5)
    world.pd()
    world.read(NO_NIXL, 10)
    world.pd()
    assert world.kv_bytes("estimated") is None


def test_a_request_that_handed_nothing_over_is_no_transfer():
    world = World(kv_bytes_per_token=100)
    world.read(NO_NIXL, 0)
    world.pd(has_kv=False)
    world.finish(route="direct")
    assert world.kv_bytes("estimated") is None


def test_without_scraping_bandwidth_is_that_of_the_last_request():
    world = World(kv_bytes_per_token=100, is_scraping=False)
    world.pd(prompt_tokens=100)
    world.pd(prompt_tokens=1000)
    assert world.rate("estimated", P) == pytest.approx(200_000)


# What our connector tells


def test_pairs_of_our_connector_are_told_apart_exactly(ppd_world):
    world = ppd_world
    world.read(NO_NIXL, 0)
    world.read(received({P_ZMQ: 4000, P2_ZMQ: 900}, {P_ZMQ: 2, P2_ZMQ: 1}), 5)
    assert world.kv_bytes("measured") == 4900
    assert world.seconds("measured") == 3
    assert world.rate("measured", P) == 2000
    assert world.rate("measured", P2) == 900
    world.read(received({P_ZMQ: 4000, P2_ZMQ: 1900}, {P_ZMQ: 2, P2_ZMQ: 3}), 10)
    assert world.kv_bytes("measured") == 5900
    assert world.rate("measured", P2) == 500


def test_peers_that_the_fleet_does_not_know_are_several_together(ppd_world):
    ppd_world.read(NO_NIXL, 0)
    unknown = "10.9.9.9:21001"
    ppd_world.read(received({"other": 600, unknown: 400, P_ZMQ: 50}, {"other": 1, unknown: 1, P_ZMQ: 1}), 5)
    assert ppd_world.kv_bytes("measured") == 1050
    assert ppd_world.rate("measured", "several") == 500
    assert ppd_world.rate("measured", P) == 50


def test_transfers_that_took_no_measurable_time_count_but_have_no_rate(ppd_world):
    ppd_world.read(NO_NIXL, 0)
    ppd_world.read(received({P_ZMQ: 4000}, {P_ZMQ: 0}), 5)
    assert ppd_world.kv_bytes("measured") == 4000
    assert ppd_world.rate("measured", P) is None


def test_an_engine_of_ours_is_never_estimated_neither_before_nor_between_its_figures(ppd_world):
    """Its series appear with the first transfer, so a reading without them does not say that it measures nothing."""
    ppd_world.pd(handoff="p2p_nccl")
    ppd_world.read(NO_NIXL, 0)
    ppd_world.pd(handoff="p2p_nccl")
    ppd_world.read(received({P_ZMQ: 4000}, {P_ZMQ: 2}), 5)
    ppd_world.read(UNKNOWN, 10)
    ppd_world.pd(handoff="p2p_nccl")
    assert ppd_world.kv_bytes("estimated") is None
    assert ppd_world.kv_bytes("measured") == 4000


def test_an_engine_of_ours_that_nobody_reads_is_estimated():
    world = World(kv_bytes_per_token=100, is_scraping=False)
    world.engines = [ppd_engine(P, "prefill", P_ZMQ), ppd_engine(D, "decode", D_ZMQ)]
    world.pd(handoff="p2p_nccl")
    assert world.kv_bytes("estimated") == 100_000


def test_transfers_that_were_refused_as_damaged_are_added_up_over_engines(ppd_world):
    assert ppd_world.readings.damaged_transfers() == 0
    ppd_world.read(received({}, {}, failures={("recv", "checksum"): 2, ("recv", "timeout"): 9}), 0)
    ppd_world.read(received({}, {}, failures={("send", "mismatch"): 1}), 0, P)
    assert ppd_world.readings.damaged_transfers() == 3
    ppd_world.read(UNKNOWN, 5)
    assert ppd_world.readings.damaged_transfers() == 1


# Drafts


def test_drafts_are_those_between_readings(world):
    world.read(EngineFigures(spec=NONE), 0)
    assert world.readings.draft_gain(D) is None
    world.read(EngineFigures(spec=TEN), 5)
    assert world.readings.draft_gain(D) == TEN
    assert world.readings.drafts()[D].latest == TEN
    world.read(EngineFigures(spec=TEN), 2 * WINDOW_S)
    assert world.readings.draft_gain(D) == NONE


def test_an_engine_that_does_not_speculate_has_no_drafts(world):
    world.read(EngineFigures(running=1), 0)
    world.read(EngineFigures(running=1), 5)
    assert (world.readings.draft_gain(D), world.readings.drafts()) == (None, {})


def test_of_a_baseline_only_drafts_are_known(world):
    world.readings.scraped(world.baseline, EngineFigures(spec=NONE, running=3), 0)
    world.readings.scraped(world.baseline, EngineFigures(spec=TEN, running=3), 5)
    assert world.readings.draft_gain(BASELINE) == TEN
    assert world.readings.latest() == {}


def test_engines_that_are_not_read_have_no_drafts(world):
    world.readings.scraped(replace(world.baseline, id="10.0.0.7:1"), EngineFigures(spec=TEN), 0)
    assert world.readings.drafts() == {}
