from ppd_core.fleet.drafts import WINDOW_S, DraftWindow
from ppd_wire.metrics.scraped import UNKNOWN, EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

NONE = SpecCounters(0, 0, 0, (0, 0, 0))
TEN = SpecCounters(10, 30, 14, (8, 5, 1))
TWENTY = SpecCounters(20, 60, 44, (18, 15, 11))


def read(*readings, process_start_s=1.0):
    """A window after readings: each the time and the counters, None where it failed."""
    window = DraftWindow()
    for now, spec in readings:
        figures = UNKNOWN if spec is None else EngineFigures(spec=spec, process_start_s=process_start_s)
        window.take(figures, now)
    return window


def test_what_was_counted_before_the_first_reading_is_not_in_the_window():
    assert read((0, TEN)).gain() is None
    assert read((0, TEN), (5, TWENTY)).gain() == TWENTY.since(TEN)


def test_the_window_slides():
    assert read((0, NONE), (5, TEN), (WINDOW_S + 4, TWENTY)).gain() == TWENTY
    assert read((0, NONE), (5, TEN), (WINDOW_S + 5, TWENTY)).gain() == TWENTY.since(TEN)


def test_a_failed_reading_hides_the_counters_and_ends_the_window_in_time():
    window = read((0, NONE), (5, TEN), (10, None))
    assert (window.latest, window.gain()) == (None, TEN)
    window.take(UNKNOWN, WINDOW_S + 5)
    assert window.gain() is None


def test_after_a_restart_only_the_new_life_counts():
    window = read((0, NONE), (5, TWENTY))
    window.take(EngineFigures(spec=TEN, process_start_s=9.0), 10)
    assert window.gain() == TEN
    other = SpecCounters(4, 8, 8, (4, 4))
    window.take(EngineFigures(spec=other, process_start_s=14.0), 15)
    assert window.gain() == other
