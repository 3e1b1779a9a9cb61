"""What went wrong with KV: each planted fault is found, with its place, and healthy parts are not blamed."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import gaussian, patterns_of, rounded, tensor

from ppd_accuracy.kv.findings import ranges_of, told_ranges
from ppd_accuracy.kv.layers import Sampled, find_moved_layers
from ppd_accuracy.kv.sketches import sample

HEADS, TOKENS, CHANNELS = 6, 160, 32
BLOCK = 16


def values(seed=0, scale=1.0):
    return rounded(gaussian(HEADS, TOKENS, CHANNELS, seed=seed, scale=scale), "bf16")


def stepped(given, name="bf16"):
    """Every other element one step of the type away: what moved must be found up to rounding."""
    raw = tensor(given, name)
    raw.raw[...] ^= np.random.default_rng(11).integers(0, 2, raw.raw.shape).astype(raw.raw.dtype)
    return raw


def found(one, other, name="bf16"):
    target = stepped(other, name) if isinstance(other, np.ndarray) else other
    return patterns_of(tensor(one, name), target, block_size=BLOCK)


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp8_e4m3"])
@pytest.mark.parametrize("offset", [1, 3, -5, 100])
def test_position_p_that_holds_p_plus_k_is_found(name, offset):
    one = values()
    other = one.copy()
    moved = slice(0, TOKENS - offset) if offset > 0 else slice(-offset, TOKENS)
    other[:, moved] = np.roll(one, -offset, axis=1)[:, moved]
    (finding,) = found(one, other, name)
    assert (finding.kind, finding.offset, finding.tokens) == ("moved_tokens", offset, ((moved.start, moved.stop),))
    assert finding.text.startswith(f"position p holds p{offset:+d}")


def test_blocks_that_hold_the_next_block_are_told_as_blocks():
    one = values()
    other = one.copy()
    other[:, :-BLOCK] = one[:, BLOCK:]
    (finding,) = found(one, other)
    assert (finding.kind, finding.offset) == ("moved_tokens", BLOCK)
    assert finding.text == "block i holds block i+1 (of 16 tokens), blocks 0 to 8: tokens 0 to 143"


def test_one_block_with_another_blocks_content_is_told_with_both():
    one = values()
    other = one.copy()
    other[:, 32:48] = one[:, 112:128]
    (finding,) = found(one, other)
    assert finding.text == "block 2 holds block 7 (of 16 tokens): tokens 32 to 47"


def test_exchanged_blocks_are_two_moves():
    one = values()
    other = one.copy()
    other[:, 32:48], other[:, 112:128] = one[:, 112:128], one[:, 32:48]
    assert {finding.text for finding in found(one, other)} == {
        "block 2 holds block 7 (of 16 tokens): tokens 32 to 47",
        "block 7 holds block 2 (of 16 tokens): tokens 112 to 127",
    }


def test_moves_are_found_among_tokens_that_are_much_alike():
    common = gaussian(HEADS, 1, CHANNELS, seed=7, scale=3.0)
    one = rounded(gaussian(HEADS, TOKENS, CHANNELS) + common, "bf16")
    other = one.copy()
    other[:, :-2] = one[:, 2:]
    (finding,) = found(one, other)
    assert finding.offset == 2


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (slice(128, 160), "zero tail: tokens 128 to 159 (blocks 8 to 9 of 16 tokens)"),
        (slice(32, 48), "zero: tokens 32 to 47 (block 2 of 16 tokens)"),
        (slice(5, 6), "zero: token 5"),
        (slice(0, 160), "everything is zero: tokens 0 to 159 (blocks 0 to 9 of 16 tokens)"),
    ],
)
def test_zero_tokens_are_found(tokens, told):
    one = values()
    other = one.copy()
    other[:, tokens] = 0
    (finding,) = found(one, tensor(other, "bf16"))
    assert (finding.kind, finding.text, finding.tokens) == ("zero", told, ((tokens.start, tokens.stop),))


def test_a_zero_head_is_told_with_its_number():
    other = values()
    other[4] = 0
    (finding,) = found(values(), tensor(other, "bf16"))
    assert (finding.kind, finding.heads) == ("zero", (4,))


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (slice(100, 160), "stale tail: tokens 100 to 159"),
        (slice(48, 64), "stale or foreign content: tokens 48 to 63 (block 3 of 16 tokens)"),
        (slice(0, 160), "unrelated content: every head and token, as of another request"),
    ],
)
def test_content_that_is_nowhere_in_the_baseline_is_stale(tokens, told):
    one = values()
    other = one.copy()
    other[:, tokens] = values(seed=5)[:, tokens]
    (finding,) = found(one, other)
    assert (finding.kind, finding.text) == ("stale", told)


def test_swapped_heads_are_found():
    one = values()
    (finding,) = found(one, one[[0, 4, 2, 3, 1, 5]])
    assert (finding.kind, finding.heads, finding.sources) == ("moved_heads", (1, 4), (4, 1))
    assert finding.text == "heads 1 and 4 are swapped"


def test_rotated_heads_are_found():
    one = values()
    (finding,) = found(one, np.roll(one, -2, axis=0))
    assert finding.text == "heads are rotated: head i holds head (i + 2) mod 6"


def test_other_exchanges_of_heads_are_listed():
    one = values()
    (finding,) = found(one, one[[1, 2, 0, 3, 4, 5]])
    assert finding.text == "heads are exchanged: 0 holds 1, 1 holds 2, 2 holds 0"


@pytest.mark.parametrize("factor", [1.1, 0.5, -1.0, 448 / 3])
def test_a_scale_factor_is_found(factor):
    one = values()
    (finding,) = found(one, one * np.float32(factor))
    assert finding.kind == "scaled"
    assert finding.factor == pytest.approx(factor, rel=2e-3)


def test_a_scaled_head_is_told_with_its_number():
    one = values()
    other = one.copy()
    other[3] *= 1.25
    (finding,) = found(one, other)
    assert (finding.kind, finding.heads) == ("scaled", (3,))
    assert finding.text.endswith("times the baseline, head 3")


def test_scattered_damage_is_not_taken_for_a_move():
    one = tensor(values(), "bf16")
    other = tensor(values(), "bf16")
    other.raw.reshape(-1)[np.random.default_rng(1).integers(0, other.raw.size, 60)] ^= 1 << 5
    findings = found(values(), other)
    assert [finding.kind for finding in findings] == ["scattered"]
    assert one.raw.shape == other.raw.shape


def test_rounding_to_another_type_is_not_taken_for_a_move():
    (finding,) = found(values(), tensor(rounded(values(), "fp8_e4m3"), "bf16"))
    assert finding.kind == "scattered"
    assert 0.01 < finding.error < 0.1


def test_two_faults_are_both_told():
    one = values()
    other = one.copy()
    other[:, 140:] = 0
    other[:, 20:23] = values(seed=9)[:, 20:23]
    target = tensor(other, "bf16")
    assert [(finding.kind, finding.tokens) for finding in found(one, target)] == [
        ("zero", ((140, 160),)),
        ("stale", ((20, 23),)),
    ]


def test_nan_is_told_with_tokens_and_heads():
    other = values()
    other[2, 7, 3] = np.nan
    (finding,) = found(values(), tensor(other, "bf16"))
    assert (finding.kind, finding.tokens, finding.heads) == ("not_finite", ((7, 8),), (2,))
    assert finding.text == "NaN or infinite numbers in token 7, head 2"


def test_one_token_and_one_head_are_no_obstacle():
    one = gaussian(1, 1, 64)
    findings = found(one, gaussian(1, 1, 64, seed=3))
    assert [finding.kind for finding in findings] == ["stale"]


def test_ranges_are_runs_and_told_with_both_ends():
    mask = np.array([1, 1, 0, 1, 0, 0, 1], bool)
    assert ranges_of(mask) == ((0, 2), (3, 4), (6, 7))
    assert told_ranges(ranges_of(mask)) == "tokens 0 to 1, 3, 6"
    assert told_ranges(((3, 4),)) == "token 3"


def sampled(layer, kind, one, other, *, is_different):
    baseline, target = tensor(one, "bf16"), stepped(other)
    return Sampled(
        layer=layer, kind=kind, group="", shape=baseline.shape, baseline=sample(baseline), target=sample(target),
        element=baseline.element, is_different=is_different,
    )  # fmt: skip


def dump(order, kinds=("key", "value")):
    """Layer i of the target holds layer order[i]; every kind alike."""
    return [
        sampled(
            layer, kind, values(seed=10 * layer + place), values(seed=10 * source + place), is_different=layer != source
        )
        for place, kind in enumerate(kinds)
        for layer, source in enumerate(order)
    ]


def test_swapped_layers_are_found_in_keys_and_values():
    (finding,) = find_moved_layers(dump([0, 2, 1, 3]))
    assert (finding.layers, finding.sources) == ((1, 2), (2, 1))
    assert finding.text == "layers 1 and 2 are swapped (key and value)"


def test_rotated_layers_are_found():
    (finding,) = find_moved_layers(dump([1, 2, 3, 0], kinds=("latent",)))
    assert finding.text == "layers are rotated: layer i holds layer (i + 1) mod 4 (latent)"


def test_keys_in_place_of_values_are_found():
    keys, others = values(seed=1), values(seed=2)
    swapped = [
        sampled(3, "key", keys, others, is_different=True),
        sampled(3, "value", others, keys, is_different=True),
    ]
    (finding,) = find_moved_layers(swapped)
    assert (finding.kind, finding.text) == ("key_for_value", "keys and values are swapped in layer 3")


def test_equal_layers_are_not_blamed():
    same = [sampled(layer, "key", values(), values(), is_different=False) for layer in range(3)]
    assert find_moved_layers(same) == ()
    assert find_moved_layers(dump([0, 1, 2])) == ()


def spoken(seed, vocabulary=12):
    """The V of a first layer: a word has the same one wherever it comes."""
    words = np.random.default_rng(seed).integers(0, vocabulary, TOKENS)
    return rounded(gaussian(HEADS, vocabulary, CHANNELS, seed=1)[:, words], "bf16")


def test_words_that_come_again_in_another_prompt_are_no_moves():
    (finding,) = found(spoken(2), spoken(3))
    assert finding.kind == "stale"


def test_a_few_words_that_come_again_are_no_move():
    one, other = spoken(2), spoken(2)
    other[:, 100:106] = one[:, [20, 21, 22, 3, 90, 57]]
    assert {finding.kind for finding in found(one, other)} == {"stale"}


def test_moved_blocks_are_found_among_words_that_come_again():
    one = spoken(2, vocabulary=80)
    other = one.copy()
    other[:, 32:48], other[:, 112:128] = one[:, 112:128], one[:, 32:48]
    assert sorted(finding.text for finding in found(one, other)) == [
        "block 2 holds block 7 (of 16 tokens): tokens 32 to 47",
        "block 7 holds block 2 (of 16 tokens): tokens 112 to 127",
    ]
