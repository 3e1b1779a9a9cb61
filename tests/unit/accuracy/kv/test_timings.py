"""The parts of a time to first token, and what is none."""

import pytest

from ppd_accuracy.kv.timings import read_timings


def test_timings_are_read_from_moments_and_from_durations():
    moments = read_timings({"t1": 10, "t2": 10.5, "t3": 10.75, "t4": 12, "t5": 12.25, "full_prefill": 4})
    durations = read_timings({"kv_load": 0.5, "selection": 0.25, "partial_recompute": 1.25, "generation": 0.25})
    assert (moments.load_s, moments.selection_s, moments.recompute_s, moments.generation_s) == (0.5, 0.25, 1.25, 0.25)
    assert (moments.total_s, moments.full_prefill_s) == (2.25, 4.0)
    assert (durations.parts, durations.full_prefill_s) == (moments.parts, None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([1, 2], "list"),
        ({"t1": 0, "t2": 1}, "t3, t4, t5 missing"),
        ({"t1": 0, "t2": 1, "t3": 0.5, "t4": 2, "t5": 3}, "at or after"),
        ({"kv_load": 1, "selection": 1, "partial_recompute": 1}, "generation is missing"),
        ({"kv_load": -1, "selection": 1, "partial_recompute": 1, "generation": 1}, "kv_load is -1"),
        ({"kv_load": "1", "selection": 1, "partial_recompute": 1, "generation": 1}, "number of seconds"),
        ({"kv_load": float("nan"), "selection": 1, "partial_recompute": 1, "generation": 1}, "number of seconds"),
    ],
)
def test_timings_that_are_none_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        read_timings(given)
