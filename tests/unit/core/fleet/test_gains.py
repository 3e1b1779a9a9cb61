import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_core.fleet.gains import delta, is_restarted
from ppd_wire.metrics.scraped import UNKNOWN, ConnectorFigures, EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

TEN = SpecCounters(10, 30, 14, (8, 5, 1))


def test_delta_is_what_the_counters_gained_and_leaves_gauges_out():
    before = EngineFigures(running=3, local_hits=10, nixl_bytes=100, kv_usage=0.5)
    after = EngineFigures(running=1, local_hits=15, nixl_bytes=100, kv_usage=0.1)
    assert delta(before, after) == EngineFigures(local_hits=5, nixl_bytes=0)


def test_delta_is_unknown_where_one_reading_does_not_say():
    assert delta(UNKNOWN, EngineFigures(local_hits=5)) == UNKNOWN
    assert delta(EngineFigures(local_hits=5), UNKNOWN) == UNKNOWN


def test_after_a_restart_everything_counted_is_gain():
    before = EngineFigures(local_hits=100, external_hits=1, process_start_s=1.0)
    after = EngineFigures(local_hits=7, external_hits=2, process_start_s=1.0)
    assert is_restarted(before, after)
    assert delta(before, after) == EngineFigures(local_hits=7, external_hits=2)


def test_a_restart_is_seen_by_its_start_time_when_no_counter_went_down():
    before = EngineFigures(local_hits=100, process_start_s=1.0)
    after = EngineFigures(local_hits=150, process_start_s=2.0)
    assert delta(before, after) == EngineFigures(local_hits=150)


def received(process_start_s=1.0, **by_peer):
    kv_bytes = {("recv", peer): value for peer, value in by_peer.items()}
    return EngineFigures(process_start_s=process_start_s, connector=ConnectorFigures(received_bytes=kv_bytes))


def test_a_peer_that_was_not_met_before_counts_from_zero():
    assert delta(received(), received(a=5)).connector.received_bytes == {("recv", "a"): 5}
    gained = delta(received(a=5), received(a=7, b=1))
    assert gained.connector.received_bytes == {("recv", "a"): 2, ("recv", "b"): 1}


def test_a_peer_that_sent_nothing_more_gained_nothing():
    assert delta(received(a=5, b=1), received(a=5, b=2)).connector.received_bytes == {("recv", "b"): 1}


def test_a_first_reading_is_only_a_starting_point_for_labelled_series_too():
    assert delta(UNKNOWN, received(a=5)) == UNKNOWN


@pytest.mark.parametrize("after", [{"a": 3}, {"b": 9}], ids=["lower", "gone"])
def test_a_labelled_counter_that_went_down_is_a_restart(after):
    assert is_restarted(received(a=5), received(**after))
    assert delta(received(a=5), received(**after)) == EngineFigures(
        connector=ConnectorFigures(received_bytes={("recv", peer): value for peer, value in after.items()})
    )


def test_all_that_a_restarted_engine_received_is_gain():
    gained = delta(received(a=5), received(process_start_s=2.0, a=6))
    assert gained.connector.received_bytes == {("recv", "a"): 6}


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=20))
def test_deltas_add_up_over_restarts(steps):
    """Each step: whether the engine restarted, and how much it counted since."""
    reading, process, total, counted = EngineFigures(local_hits=0, process_start_s=0), 0, 0.0, 0.0
    for restarts, amount in steps:
        process += restarts
        counted = amount if restarts else counted + amount
        current = EngineFigures(local_hits=counted, process_start_s=process)
        total += delta(reading, current).local_hits
        reading = current
    assert total == sum(amount for _, amount in steps)


# Drafts


def test_the_gain_of_drafts_is_what_was_counted_since():
    before, after = EngineFigures(spec=TEN), EngineFigures(spec=SpecCounters(12, 36, 18, (10, 6, 2)))
    assert delta(before, after).spec == SpecCounters(2, 6, 4, (2, 1, 1))
    assert delta(UNKNOWN, after).spec is None
    assert delta(EngineFigures(running=1), after).spec is None
    assert not is_restarted(before, after)


@pytest.mark.parametrize("after", [SpecCounters(3, 9, 3, (2, 1, 0)), SpecCounters(11, 33, 14, (9, 5, 0))])
def test_a_counter_of_drafts_that_went_down_is_a_restart(after):
    before = EngineFigures(spec=TEN, local_hits=5)
    now = EngineFigures(spec=after, local_hits=7)
    assert is_restarted(before, now)
    assert delta(before, now) == EngineFigures(spec=after, local_hits=7)


def test_a_restart_seen_elsewhere_makes_all_drafts_gain():
    before = EngineFigures(spec=TEN, process_start_s=1.0)
    after = EngineFigures(spec=SpecCounters(20, 60, 20, (10, 6, 4)), process_start_s=2.0)
    assert delta(before, after).spec == after.spec


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=20))
def test_gains_of_drafts_add_up_over_restarts(steps):
    """Each step: whether the engine restarted, and how many tokens of one more draft were accepted."""
    reading = EngineFigures(spec=SpecCounters(0, 0, 0, (0, 0, 0)), process_start_s=0)
    total, process = SpecCounters(0, 0, 0, (0, 0, 0)), 0
    for restarts, accepted in steps:
        process += restarts
        before = SpecCounters(0, 0, 0, (0, 0, 0)) if restarts else reading.spec
        draft = (1, 3, accepted, tuple(int(at < accepted) for at in range(3)))
        current = EngineFigures(spec=add(before, draft), process_start_s=process)
        total = add(total, delta(reading, current).spec)
        reading = current
    wanted = SpecCounters(0, 0, 0, (0, 0, 0))
    for _, accepted in steps:
        wanted = add(wanted, (1, 3, accepted, tuple(int(at < accepted) for at in range(3))))
    assert total == wanted


def add(one, other):
    positions = tuple(a + b for a, b in zip(one[3], other[3], strict=True))
    return SpecCounters(one[0] + other[0], one[1] + other[1], one[2] + other[2], positions)
