"""Rows are read piece by piece, and counted where they are too far apart. Their figures: test_figures."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import gaussian, tensor

from ppd_accuracy.kv import rows as rows_module
from ppd_accuracy.kv.rows import compare_rows, count_beyond, pieces


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 100), (3, 40, 7)])
def test_pieces_cut_neither_figures_nor_rows(monkeypatch, shape):
    one, other = (tensor(values, "bf16") for values in (gaussian(*shape), gaussian(*shape, seed=9)))
    whole = compare_rows(one, other)
    monkeypatch.setattr(rows_module, "PIECE", 16)
    cut = compare_rows(one, other)
    for name in ("squared_difference", "squared_target", "largest_ulp", "total_ulp", "pairs"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-6, err_msg=name)


def test_pieces_cover_every_element_once(monkeypatch):
    monkeypatch.setattr(rows_module, "PIECE", 16)
    for rows, channels in ((5, 3), (4, 16), (2, 50), (1, 1), (3, 9)):
        parts = list(pieces(rows, channels))
        covered = [place for _, _, start, stop in parts for place in range(start, stop)]
        assert covered == list(range(rows * channels))
        assert all(first * channels <= start < stop <= last * channels for first, last, start, stop in parts)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [((1, 2, 3), (1, 3, 2), "differ"), ((1, 0, 3), (1, 0, 3), "no elements")],
)
def test_shapes_that_cannot_be_compared_are_refused(one, other, told):
    with pytest.raises(ValueError, match=told):
        compare_rows(tensor(np.zeros(one)), tensor(np.zeros(other)))


def test_elements_are_beyond_by_steps_and_by_the_floor():
    one = np.ones((1, 1, 4), np.float32)
    other = one.copy()
    other[0, 0, :3] += np.float32([2.0**-23, 4 * 2.0**-23, np.nan])
    assert count_beyond(tensor(one), tensor(other), ulp=1, floor=0.0) == 2
    assert count_beyond(tensor(one), tensor(other), ulp=1, floor=1e-3) == 1
