"""Rows that have much in common, and faults of some heads: nothing is called moved that is as near to its own place."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import gaussian, patterns_of, rounded, tensor

from ppd_accuracy.kv.layers import Sampled, find_moved_layers
from ppd_accuracy.kv.sketches import sample

TYPES = ["fp8_e4m3", "fp8_e5m2", "bf16", "fp16"]


def narrow(seed=0):
    return rounded(gaussian(6, 160, 32, seed=seed), "bf16")


def wide(seed=0, heads=8):
    return gaussian(heads, 512, 64, seed=seed)


@pytest.mark.parametrize("ratio", [4.0, 8.0])
@pytest.mark.parametrize("name", TYPES)
def test_a_stale_tail_is_told_among_rows_with_a_large_common_part(name, ratio):
    common = gaussian(8, 1, 64, seed=7, scale=ratio)
    one, other = common + wide(), common + wide()
    other[:, 400:] = common + wide(seed=5)[:, 400:]
    (finding,) = patterns_of(tensor(one, name), tensor(other, name))
    assert (finding.kind, finding.text) == (
        "stale",
        "stale tail: tokens 400 to 511 (blocks 25 to 31 of 16 tokens)",
    )


@pytest.mark.parametrize("name", TYPES)
def test_channels_that_are_lost_beside_a_large_one_are_no_move_and_no_other_request(name):
    one = wide()
    one[:, :, 7] = 60.0
    other = np.zeros_like(one)
    other[:, :, 7] = 60.0
    (finding,) = patterns_of(tensor(one, name), tensor(other, name))
    assert finding.kind == "scattered"


@pytest.mark.parametrize("scale", [1.3, 0.7])
def test_coarse_noise_beside_large_channels_is_not_taken_for_another_request(scale):
    one = rounded(wide(), "bf16")
    one[:, :, 7], one[:, :, 40] = 40.0, -25.0
    other = rounded(one * np.float32(scale), "fp8_e5m2") / np.float32(scale)
    (finding,) = patterns_of(tensor(one, "bf16"), tensor(other, "bf16"))
    assert finding.kind == "scattered"


def test_one_large_channel_with_another_factor_is_not_a_scale_of_all():
    one = wide()
    one[:, :, 7] = 4000.0
    other = one + gaussian(8, 512, 64, seed=3, scale=0.1)
    other[:, :, 7] = 4400.0
    assert [finding.kind for finding in patterns_of(tensor(one, "bf16"), tensor(other, "bf16"))] == ["scattered"]


@pytest.mark.parametrize("ratio", [0.0, 8.0])
@pytest.mark.parametrize("name", TYPES)
def test_a_shift_in_some_of_the_heads_is_told_with_them(name, ratio):
    one = gaussian(8, 1, 64, seed=7, scale=ratio) + wide()
    other = one.copy()
    other[4:, 16:] = one[4:, :-16]
    (finding,) = patterns_of(tensor(one, name), tensor(other, name))
    assert (finding.kind, finding.offset, finding.heads) == ("moved_tokens", -16, (4, 5, 6, 7))
    assert finding.text == "block i holds block i-1 (of 16 tokens), blocks 1 to 31: tokens 16 to 511, heads 4 to 7"


def test_shifts_that_differ_between_heads_are_two_findings():
    one = wide()
    other = one.copy()
    other[4:, 3:], other[:4, :-5] = one[4:, :-3], one[:4, 5:]
    findings = {(finding.offset, finding.heads) for finding in patterns_of(tensor(one, "bf16"), tensor(other, "bf16"))}
    assert findings == {(5, (0, 1, 2, 3)), (-3, (4, 5, 6, 7))}


@pytest.mark.parametrize("name", TYPES)
def test_heads_that_are_swapped_from_a_token_on_are_told_with_the_tokens(name):
    one = wide()
    other = one.copy()
    other[[0, 1], 400:] = one[[1, 0], 400:]
    (finding,) = patterns_of(tensor(one, name), tensor(other, name))
    assert (finding.kind, finding.heads, finding.sources) == ("moved_heads", (0, 1), (1, 0))
    assert (finding.text, finding.tokens) == ("heads 0 and 1 are swapped: tokens 400 to 511", ((400, 512),))


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 1, 2, 2, 4, 5, 6, 7], "head 3 holds the content of head 2"),
        ([4, 4, 2, 3, 4, 5, 6, 7], "heads hold others' content: 0 holds 4, 1 holds 4"),
    ],
)
def test_copies_of_one_head_are_no_exchange(order, told):
    one = wide()
    (finding,) = patterns_of(tensor(one, "bf16"), tensor(one[order], "bf16"))
    assert (finding.kind, finding.text) == ("moved_heads", told)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (slice(0, 160), "the baseline is zero there, the target is not: tokens 0 to 159 (blocks 0 to 9 of 16 tokens)"),
        (slice(32, 48), "the baseline is zero there, the target is not: tokens 32 to 47 (block 2 of 16 tokens)"),
    ],
)
def test_a_baseline_of_zeros_is_told_as_such(tokens, told):
    one = narrow()
    one[:, tokens] = 0
    (finding,) = patterns_of(tensor(one, "bf16"), tensor(narrow(), "bf16"))
    assert (finding.kind, finding.text) == ("zero_baseline", told)


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_layers_that_share_a_large_channel_are_not_taken_for_each_other(share):
    """Without their other channels they are closest to the layer that has the least of them."""
    one = [narrow(seed=layer) for layer in range(4)]
    one[1] *= np.float32(share)
    for each in one:
        each[:, :, 3] = 18.0
    other = np.zeros_like(one[0])
    other[:, :, 3] = 18.0
    layers = [
        Sampled(
            layer=layer, kind="key", group="", shape=each.shape, baseline=sample(tensor(each, "fp8_e4m3")),
            target=sample(tensor(other, "fp8_e4m3")), element=tensor(each, "fp8_e4m3").element, is_different=True,
        )
        for layer, each in enumerate(one)
    ]  # fmt: skip
    assert find_moved_layers(layers) == ()
