from ppd_proxy.telemetry import instruments, instruments_shadow
from ppd_proxy.telemetry.instruments import INSTRUMENTS


def test_the_table_is_complete_and_readable():
    for instrument in INSTRUMENTS:
        assert instrument.name.startswith("ppd_")
        assert instrument.name.endswith("_total") == (instrument.kind == "counter")
        assert bool(instrument.buckets) == (instrument.kind == "histogram")
        assert list(instrument.buckets) == sorted(set(instrument.buckets))
        assert instrument.help.endswith(".")
        assert "|" not in instrument.help
        assert set(instrument.label_values) <= set(instrument.labels)


def test_every_instrument_is_in_the_table_once_the_shadows_last():
    names = [instrument.name for instrument in INSTRUMENTS]
    assert len(set(names)) == len(names)
    assert INSTRUMENTS[0] is instruments.REQUESTS
    assert INSTRUMENTS[-1] is instruments_shadow.GUARD_ACTIONS


def test_what_engines_tell_is_labelled_by_engine_first():
    scraped = [instrument for instrument in INSTRUMENTS if instrument.group == "scraped"]
    assert scraped
    assert {instrument.labels[0] for instrument in scraped} == {"engine"}
