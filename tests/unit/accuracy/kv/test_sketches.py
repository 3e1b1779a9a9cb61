"""Small stand-ins for rows: alike where the rows are, and the same ones every time."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import gaussian, tensor

from ppd_accuracy.kv import rows as rows_module
from ppd_accuracy.kv.elements import BF16, FP8_E4M3, FP32
from ppd_accuracy.kv.sketches import by_token, match_tolerance, nearest, own_distances, row_lengths, sample, sketch

VALUES = gaussian(3, 20, 64)


def test_a_sketch_is_linear_in_its_row():
    twice = sketch(tensor(2 * VALUES))
    np.testing.assert_allclose(twice, 2 * sketch(tensor(VALUES)), rtol=1e-5, atol=1e-4)


def test_rows_are_about_as_far_apart_as_their_sketches():
    """A projection on random signs keeps lengths, within what eight of them can tell."""
    lengths = row_lengths(sketch(tensor(VALUES))) / np.sqrt(8)
    assert np.median(lengths / row_lengths(VALUES)) == pytest.approx(1.0, abs=0.15)


def test_pieces_change_no_sketch(monkeypatch):
    whole = sketch(tensor(VALUES))
    monkeypatch.setattr(rows_module, "PIECE", 16)
    np.testing.assert_allclose(sketch(tensor(VALUES)), whole, rtol=1e-4, atol=1e-4)


def test_what_is_not_finite_counts_as_zero():
    spoiled, zeroed = VALUES.copy(), VALUES.copy()
    spoiled[0, 0, :3] = np.nan, np.inf, -np.inf
    zeroed[0, 0, :3] = 0
    np.testing.assert_allclose(sketch(tensor(spoiled)), sketch(tensor(zeroed)), rtol=1e-5, atol=1e-5)


def test_the_nearest_place_is_found_by_content():
    order = np.random.default_rng(3).permutation(20)
    sketches = by_token(sketch(tensor(VALUES)))
    assert nearest(sketches[order], sketches).tolist() == order.tolist()


def test_a_distance_from_nothing_is_infinite():
    zeros = np.zeros((2, 8), np.float32)
    assert own_distances(zeros + 1, zeros).tolist() == [np.inf, np.inf]
    assert own_distances(zeros, zeros).tolist() == [np.inf, np.inf]
    assert own_distances(zeros + 1, zeros + 1).tolist() == [0.0, 0.0]


def test_a_sample_is_some_rows_as_they_are():
    rows = sample(tensor(gaussian(4, 100, 300)))
    assert rows.shape == (64, 256)
    assert rows[0].tolist() == gaussian(4, 100, 300)[0, 0, :256].tolist()


def test_coarser_types_are_matched_more_widely():
    assert match_tolerance(FP32) < match_tolerance(BF16) <= match_tolerance(FP8_E4M3) == 0.25
