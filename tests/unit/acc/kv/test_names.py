"""Names of a dump's arrays: layer, kind, order, and which belong together."""

import pytest

from ppd_acc.kv.names import natural, pair_up, read_name


@pytest.mark.parametrize(
    ("name", "layer", "kind", "point"),
    [
        ("layer_12_key", 12, "key", ""),
        ("layer_3_latent", 3, "latent", ""),
        ("layer_0_after_transfer_value", 0, "value", "after_transfer"),
        ("model.layers.7.self_attn.v", 7, "value", ""),
        ("past_key_values.4.key", 4, "key", ""),
        ("k_9", 9, "key", ""),
        ("scale", None, "", ""),
        ("layer_1_valuekey", 1, "", ""),
    ],
)
def test_names_tell_layer_and_kind(name, layer, kind, point):
    about = read_name(name)
    assert (about.layer, about.kind, about.point) == (layer, kind, point)


def test_layer_2_stands_before_layer_10():
    names = ["layer_10_key", "layer_2_value", "layer_2_key", "x", "layer_1_key"]
    assert sorted(names, key=natural) == ["layer_1_key", "layer_2_key", "layer_2_value", "layer_10_key", "x"]


def test_pairs_are_in_natural_order_and_lone_arrays_are_among_them():
    pairs, notes = pair_up(["layer_10_key", "layer_2_key", "b"], ["layer_2_key", "layer_10_key", "a"])
    told = [(pair.baseline, pair.target) for pair in pairs]
    assert told == [(None, "a"), ("b", None), ("layer_2_key", "layer_2_key"), ("layer_10_key", "layer_10_key")]
    assert notes == []


def test_captures_at_different_points_are_held_against_each_other():
    one = [f"layer_{layer}_after_prefill_{kind}" for layer in (0, 1) for kind in ("key", "value")]
    other = [name.replace("prefill", "transfer") for name in one]
    pairs, (note,) = pair_up(one, other)
    assert [pair.target for pair in pairs] == other
    assert "after_prefill against after_transfer" in note


def test_two_candidates_are_not_guessed_between():
    pairs, _ = pair_up(["layer_0_key"], ["layer_0_after_prefill_key", "layer_0_during_decode_key"])
    assert all(None in (pair.baseline, pair.target) for pair in pairs)
