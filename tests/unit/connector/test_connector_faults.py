"""Faults on purpose: each does what it says and nothing else, to the same requests every time."""

import logging

import numpy as np
import pytest
from tests.support.connector.kv_engines import key_of
from tests.support.connector.memory_store import SHAPES, some_kv

from ppd_connector import faults
from ppd_connector.elements import HIGH_BITS, from_float32, to_float32
from ppd_connector.faults import KV_FAULTS, NAMES, Drawn, FaultSource, check_source, flip_bit, parse

TOKENS, BLOCK = 22, 4
DTYPES = [shape.dtype for shape in SHAPES]
KEYS = [key_of(number * 1_000_003) for number in range(1, 4001)]


def smooth_kv(seed=3):
    """KV of ordinary values: raw noise would be full of NaN."""
    generator = np.random.default_rng(seed)
    return [
        [from_float32(generator.normal(size=plane.shape).astype(np.float32), shape.dtype) for plane in planes]
        for shape, planes in zip(SHAPES, some_kv(TOKENS), strict=True)
    ]


def struck(specification, layers=None, key=KEYS[0], stale=None, dtypes=DTYPES):
    before = smooth_kv() if layers is None else layers
    kept = [[plane.copy() for plane in planes] for planes in before]
    after = faults.apply(Drawn(key, parse(specification)), before, dtypes, BLOCK, stale)
    assert same(before, kept), "what was given is not changed"
    return after


def same(one, other):
    return all(
        np.array_equal(a, b) for planes, others in zip(one, other, strict=True)
        for a, b in zip(planes, others, strict=True)
    )  # fmt: skip


# Specifications


def test_a_specification_is_read():
    found = parse(" bitflip:0.001@0.05, layer_swap@1\nscale:-2,throttle:1e6 , wire_bitflip,,")
    assert [(fault.name, fault.value, fault.probability) for fault in found] == [
        ("bitflip", 0.001, 0.05),
        ("layer_swap", None, 1.0),
        ("scale", -2.0, 1.0),
        ("throttle", 1e6, 1.0),
        ("wire_bitflip", None, 1.0),
    ]
    assert parse("") == parse(" \n, ") == ()


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("bitflp:0.1", "'bitflp' is none of bitflip, layer_swap"),
        ("bitflip", "must follow"),
        ("bitflip:many", "share of elements"),
        ("bitflip:0", "above 0 and at most 1"),
        ("bitflip:1.5", "above 0 and at most 1"),
        ("bitflip:nan", "above 0 and at most 1"),
        ("scale", "factor"),
        ("throttle:0", "bytes per second above 0"),
        ("throttle:-5", "bytes per second above 0"),
        ("stale:3", "stale takes no value"),
        ("stale@often", "probability, 0 to 1"),
        ("stale@1.1", "from 0 to 1"),
        ("stale@nan", "from 0 to 1"),
    ],
)
def test_a_bad_item_is_named(item, says):
    for text in (item, f"fp8, {item}"):
        with pytest.raises(ValueError, match=f"fault is {item!r}") as raised:
            parse(text)
        assert says in str(raised.value)
        with pytest.raises(ValueError, match="fault is"):
            check_source(text)


@pytest.mark.parametrize("value", [5, None, ["fp8"], True])
def test_a_source_is_a_text(value):
    with pytest.raises(ValueError, match="must be a specification or the path"):
        check_source(value)


def test_a_path_is_not_read_as_a_specification():
    check_source("/no/such/file")


# When they strike


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 1.0])
def test_a_fault_strikes_its_share_of_requests(probability):
    source = FaultSource(f"fp8@{probability}")
    share = sum(source.draw(key).changes_kv for key in KEYS) / len(KEYS)
    assert abs(share - probability) < (0.02 if 0 < probability < 1 else 1e-9)


def test_the_same_requests_are_struck_every_time_and_each_fault_by_itself():
    one, other = FaultSource("fp8@0.5, stale@0.5"), FaultSource("stale@0.5")
    drawn = [one.draw(key) for key in KEYS]
    assert drawn == [one.draw(key) for key in KEYS]
    stale = [any(fault.name == "stale" for fault in each.faults) for each in drawn]
    assert stale == [other.draw(key).changes_kv for key in KEYS]
    both = sum(len(each.faults) == 2 for each in drawn) / len(KEYS)
    assert abs(both - 0.25) < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_what_kind_of_fault_it_is(name):
    value = {"bitflip": ":0.1", "scale": ":2", "throttle": ":1000"}.get(name, "")
    source = FaultSource(name + value)
    drawn = source.draw(KEYS[0])
    assert drawn.changes_kv is (name in KV_FAULTS)
    assert drawn.flips_on_the_wire is (name == "wire_bitflip")
    assert drawn.bytes_per_s == (1000 if name == "throttle" else None)
    assert source.wants_stale is (name == "stale")


def test_no_fault_is_on_without_a_specification(caplog):
    source = FaultSource("")
    assert source.draw(KEYS[0]) == Drawn()
    assert not source.wants_stale
    assert not caplog.records


def test_a_file_is_read_again_for_every_request(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ppd_connector")
    path = tmp_path / "fault"
    source = FaultSource(str(path))

    def drawn(text):
        caplog.clear()
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        names = [[fault.name for fault in source.draw(KEYS[0]).faults] for _ in range(2)]
        assert names[0] == names[1]
        return names[0], [record.getMessage() for record in caplog.records]

    assert source.draw(KEYS[0]) == Drawn()
    assert not caplog.records
    names, said = drawn("fp8\n")
    assert (names, said) == (["fp8"], ["FAULT INJECTION IS ON: fp8. Answers of this engine are wrong on purpose."])
    assert drawn("fp8\n") == (["fp8"], [])
    names, (line,) = drawn("stale")
    assert names == ["stale"]
    assert "FAULT INJECTION IS ON: stale" in line
    names, (line,) = drawn("stale, nonsense")
    assert names == []
    assert "'nonsense'" in line
    assert "no fault is on" in line
    assert drawn("") == ([], ["fault injection is off"])
    drawn("fp8")
    assert drawn(None) == ([], ["fault injection is off"])


# What they do


def test_bitflip_turns_one_high_bit_in_its_share_of_elements():
    before = some_kv(500)
    after = struck("bitflip:0.1", before)
    for shape, planes, others in zip(SHAPES, before, after, strict=True):
        low, high = HIGH_BITS[shape.dtype]
        for plane, other in zip(planes, others, strict=True):
            change = (plane ^ other).reshape(-1)
            flipped = change[change != 0]
            assert all(int(each).bit_count() == 1 and low <= int(each).bit_length() - 1 < high for each in flipped)
            share, spread = len(flipped) / change.size, (0.09 / change.size) ** 0.5
            assert abs(share - 0.1) < 4 * spread
            assert len({int(each) for each in flipped}) == high - low, "every high bit has its turn"


def test_bitflip_of_everything_spares_nothing():
    for planes, others in zip(smooth_kv(), struck("bitflip:1"), strict=True):
        for plane, other in zip(planes, others, strict=True):
            assert (plane != other).all()


def test_bitflip_follows_from_the_key():
    assert same(struck("bitflip:0.1"), struck("bitflip:0.1"))
    assert not same(struck("bitflip:0.1"), struck("bitflip:0.1", key=KEYS[1]))


@pytest.mark.parametrize(("count", "order"), [(1, [0]), (2, [1, 0]), (3, [0, 2, 1]), (4, [0, 2, 1, 3])])
def test_layer_swap_swaps_two_in_the_middle(count, order):
    layers = [[np.full((1, TOKENS, 2), number, np.uint16)] for number in range(count)]
    found = struck("layer_swap", layers, dtypes=["bfloat16"] * count)
    assert [int(planes[0][0, 0, 0]) for planes in found] == order


def test_block_shift_moves_everything_up_by_a_block():
    before = smooth_kv()
    for planes, others in zip(before, struck("block_shift", before), strict=True):
        for plane, other in zip(planes, others, strict=True):
            assert np.array_equal(other[:, : TOKENS - BLOCK], plane[:, BLOCK:])
            assert np.array_equal(other[:, TOKENS - BLOCK :], plane[:, TOKENS - BLOCK :])


def test_block_shift_needs_two_blocks(caplog):
    one = [[plane[:, :BLOCK] for plane in planes] for planes in smooth_kv()]
    assert same(struck("block_shift", one), one)
    assert f"{BLOCK} tokens are one block" in caplog.text


@pytest.mark.parametrize("old_tokens", [9, 22, 40])
def test_stale_leaves_what_the_request_before_had(old_tokens):
    before, old = smooth_kv(), some_kv(old_tokens, seed=5)
    count = min(old_tokens, TOKENS)
    for planes, olds, others in zip(before, old, struck("stale", before, stale=old), strict=True):
        for plane, stale, other in zip(planes, olds, others, strict=True):
            assert np.array_equal(other[:, :count], stale[:, :count])
            assert np.array_equal(other[:, count:], plane[:, count:])


def test_the_first_request_has_none_before_it():
    assert same(struck("stale"), smooth_kv())


@pytest.mark.parametrize("tokens", [1, 3, 22])
def test_zero_tail_wipes_the_last_quarter(tokens):
    before = [[plane[:, :tokens] for plane in planes] for planes in smooth_kv()]
    tail = max(1, tokens // 4)
    for planes, others in zip(before, struck("zero_tail", before), strict=True):
        for plane, other in zip(planes, others, strict=True):
            assert np.array_equal(other[:, : tokens - tail], plane[:, : tokens - tail])
            assert not other[:, tokens - tail :].any()


def test_fp8_is_as_near_as_e4m3_gets():
    before, after = smooth_kv(), struck("fp8")
    for shape, planes, others in zip(SHAPES, before, after, strict=True):
        for plane, other in zip(planes, others, strict=True):
            values, rounded = to_float32(plane, shape.dtype), to_float32(other, shape.dtype)
            assert (np.abs(values - rounded) <= np.maximum(np.abs(values) / 16, 2.0**-10)).all()
            assert np.array_equal(values, rounded) is (shape.dtype == "uint8")
    assert same(struck("fp8", after), after), "twice is once"


@pytest.mark.parametrize("factor", [2.0, -0.5, 1.0])
def test_scale_multiplies(factor):
    """Powers of two are exact in every type."""
    for shape, planes, others in zip(SHAPES, smooth_kv(), struck(f"scale:{factor}"), strict=True):
        for plane, other in zip(planes, others, strict=True):
            values, scaled = to_float32(plane, shape.dtype), to_float32(other, shape.dtype)
            is_normal = np.abs(values) > 2.0**-5
            assert np.array_equal(scaled[is_normal], values[is_normal] * np.float32(factor))


def test_several_faults_strike_one_after_the_other(caplog):
    both = struck("zero_tail, scale:2")
    assert same(both, struck("scale:2", struck("zero_tail")))
    assert not same(both, struck("scale:2"))


def test_every_fault_that_strikes_is_logged_with_its_key(caplog):
    for name in KV_FAULTS:
        caplog.clear()
        struck(name + {"bitflip": ":0.1", "scale": ":2"}.get(name, ""))
        (record,) = caplog.records
        assert f"FAULT INJECTED key={KEYS[0]} {name}: " in record.getMessage()


def test_faults_that_are_not_about_kv_leave_it_alone():
    assert same(struck("wire_bitflip, throttle:5"), smooth_kv())


def test_flip_bit_turns_one_bit_over_wherever_it_lies():
    payload, positions = memoryview(bytes(range(64))), set()
    for key in KEYS:
        flipped = flip_bit(payload, key)
        change = int.from_bytes(flipped) ^ int.from_bytes(payload)
        assert change.bit_count() == 1
        positions.add(change.bit_length() - 1)
        assert bytes(payload) == bytes(range(64))
    assert len(positions) == 512, "any bit may be struck"
    assert flip_bit(payload, KEYS[0]) == flip_bit(payload, KEYS[0])
