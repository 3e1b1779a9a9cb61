from dataclasses import FrozenInstanceError

import pytest

from ppd_proxy.telemetry.instrument import Instrument


def test_an_instrument_without_more_words_has_neither_labels_nor_a_unit():
    plain = Instrument(name="ppd_a_total", kind="counter", group="kv", help="A.")
    assert (plain.labels, plain.unit, plain.label_values, plain.buckets) == ((), "", {}, ())
    with pytest.raises(FrozenInstanceError):
        plain.name = "ppd_b_total"
