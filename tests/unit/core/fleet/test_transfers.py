import pytest

from ppd_core.fleet.transfers import SEVERAL, Transfers, by_prefill


def test_an_engine_that_measures_makes_totals_known_before_its_first_transfer():
    transfers = Transfers()
    assert transfers.kv_bytes == {}
    transfers.measure("d", {}, {})
    assert (transfers.kv_bytes, transfers.seconds, transfers.rates) == ({"measured": 0}, {"measured": 0}, {})


def test_rates_are_those_of_the_last_interval_with_transfers():
    transfers = Transfers()
    transfers.measure("d", {"p": 4000, "q": 100}, {"p": 2, "q": 1})
    transfers.measure("d", {"p": 9000}, {"p": 3})
    transfers.measure("d", {}, {})
    assert transfers.rates == {"d": ("measured", {"p": 3000})}
    assert (transfers.kv_bytes, transfers.seconds) == ({"measured": 13100}, {"measured": 6})


def test_what_another_engine_than_a_decode_engine_receives_has_no_rate():
    transfers = Transfers()
    transfers.measure(None, {"p": 4000}, {"p": 2})
    assert (transfers.kv_bytes, transfers.rates) == ({"measured": 4000}, {})


def test_estimates_become_rates_when_their_interval_ends():
    transfers = Transfers()
    transfers.estimate("d", "p", 100.0, 0.5)
    transfers.estimate("d", "p", 300.0, 1.5)
    assert transfers.rates == {}
    transfers.close("d")
    assert transfers.rates == {"d": ("estimated", {"p": 200.0})}
    transfers.close("d")
    assert transfers.rates == {"d": ("estimated", {"p": 200.0})}


@pytest.mark.parametrize(("prefill", "spent_s"), [(None, 1.0), ("p", 0.0), ("p", -1.0)])
def test_an_estimate_without_a_time_or_a_pair_counts_its_bytes_only(prefill, spent_s):
    transfers = Transfers()
    transfers.estimate("d", prefill, 100.0, spent_s)
    transfers.close("d")
    assert (transfers.kv_bytes, transfers.seconds, transfers.rates) == ({"estimated": 100}, {}, {})


def test_of_an_engine_that_left_only_the_totals_stay():
    transfers = Transfers()
    transfers.measure("d", {"p": 4000}, {"p": 2})
    transfers.estimate("d", "p", 100.0, 0.5)
    transfers.forget("d")
    transfers.close("d")
    assert (transfers.rates, transfers.kv_bytes) == ({}, {"measured": 4000, "estimated": 100})


def test_peers_that_nobody_knows_are_added_up():
    received = {("recv", "z1"): 5.0, ("recv", "z8"): 2.0, ("recv", "z9"): 3.0}
    assert by_prefill(received, {"z1": "p", None: "q"}) == {"p": 5, SEVERAL: 5}
