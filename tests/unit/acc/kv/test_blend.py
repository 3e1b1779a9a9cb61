"""The CacheBlend view as JSON and for people; through the command: cli/kv/test_check_kv_blend."""

import re

import numpy as np
from tests.support.acc.commands import lines_of

from ppd_acc.kv.blend import blend_data, blend_view, neighbours
from ppd_acc.outcome import Exit, Result
from ppd_accuracy.kv.blend import blend
from ppd_accuracy.kv.blend_advice import recommend
from ppd_accuracy.kv.timings import Timings

BAR = re.compile(r"\s*\S+ to \S+ +(\d+) ?(#*)$")
DEVIATIONS = np.arange(100.0) ** 2
TIMINGS = Timings(load_s=0.25, selection_s=0.25, recompute_s=0.25, generation_s=0.25, full_prefill_s=3.0)


def shown(view, timings=None):
    parts = blend_view(view, recommend(view, timings=timings), timings)
    return list(lines_of(Result(exit=Exit.PASS, data={}, view=parts)))


def test_equal_layers_overlap_wholly_and_one_alone_with_none():
    assert neighbours(blend({1: DEVIATIONS, 2: DEVIATIONS})) == 1.0
    assert neighbours(blend({1: DEVIATIONS})) is None
    assert not any("overlap" in line for line in shown(blend({1: DEVIATIONS})))


def test_the_json_has_the_curve_of_each_check_layer_and_what_is_recommended():
    view = blend({1: DEVIATIONS, 2: DEVIATIONS}, check_layers=(1, 2))
    data = blend_data(view, recommend(view), None)
    assert list(data["curve"]["coverage"]) == ["1", "2"]
    assert data["recommended_ratio"] == recommend(view).ratio
    assert data["time_to_first_token"] is None


def test_times_are_told_only_where_they_were_measured():
    view = blend({1: DEVIATIONS})
    assert blend_data(view, recommend(view), TIMINGS)["time_to_first_token"]["total_s"] == 1.0
    assert any("full prefill instead" in line for line in shown(view, TIMINGS))
    assert not any("time to first token" in line for line in shown(view))


def test_the_histograms_bars_hold_every_token():
    bars = [found for line in shown(blend({1: DEVIATIONS})) if (found := BAR.match(line))]
    assert sum(int(bar[1]) for bar in bars) == len(DEVIATIONS)
    assert max(bar[2] for bar in bars) == "#" * 40
