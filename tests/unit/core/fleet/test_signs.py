import pytest

from ppd_core.fleet.signs import Signal


def late(signal, times, *, is_spared=False):
    for _ in range(times):
        signal.be_late(missed_limit=3, good_limit=2, is_spared=is_spared)


def miss(signal, times):
    for _ in range(times):
        signal.miss(missed_limit=3, good_limit=2)


def test_a_signal_turns_bad_after_misses_in_a_row_only():
    signal = Signal()
    miss(signal, 2)
    signal.succeed()
    miss(signal, 2)
    assert signal.is_good
    miss(signal, 1)
    assert not signal.is_good


def test_a_signal_that_was_lost_needs_goods_in_a_row():
    signal = Signal()
    miss(signal, 3)
    signal.succeed()
    miss(signal, 1)
    signal.succeed()
    assert not signal.is_good
    signal.succeed()
    assert signal.is_good


def test_a_signal_that_never_was_good_needs_one():
    signal = Signal(is_good=False)
    signal.succeed()
    assert signal.is_good


@pytest.mark.parametrize(("misses", "lates", "is_good"), [(0, 5, True), (0, 6, False), (1, 3, True), (1, 4, False)])
def test_lateness_counts_half_as_much_as_a_refusal(misses, lates, is_good):
    signal = Signal()
    miss(signal, misses)
    late(signal, lates)
    assert signal.is_good == is_good


def test_lateness_alone_loses_no_signal_that_is_spared():
    signal = Signal()
    late(signal, 100, is_spared=True)
    assert signal.is_good
