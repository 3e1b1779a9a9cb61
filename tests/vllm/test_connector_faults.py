"""Faults on purpose: each changes the KV that arrives, as the dumps of both engines show, and the checksum sees the one
that it can see."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import completion
from tests.vllm.kv_calls import hand_over, post, ppd_cluster, prompt_of, wait_until

from cluster import Cluster

BLOCK_TOKENS = 32
FLIPS = 20

Dump = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture
def cluster(use_cluster: UseCluster, folder: Path) -> Cluster:
    """Both engines dump every request; the decode engine's faults are switched by a file, failed loads recomputed."""
    (folder / "fault").touch()
    settings = {"dump_dir": str(folder / "dumps")}
    common = {"block_tokens": BLOCK_TOKENS, "load_failure_policy": "recompute"}
    return use_cluster(
        ppd_cluster(
            prefill={**common, "kv_settings": settings},
            decode={**common, "kv_settings": {**settings, "fault": str(folder / "fault")}},
        )
    )


def newest(folder: Path, side: str, known: set[Path]) -> Path:
    found: list[Path] = []

    def is_there() -> bool:
        found[:] = [path for path in folder.glob(f"*_{side}.npz") if path not in known]
        return bool(found)

    wait_until(is_there, f"a dump of the {side} side")
    return found[0]


def dumps_of(cluster: Cluster, folder: Path, fault: str, text: str) -> tuple[Dump, Dump]:
    """What left the prefill engine and what is in the decode engine's cache, for one request under a fault."""
    known = set((folder / "dumps").glob("*.npz"))
    (folder / "fault").write_text(fault)
    try:
        assert hand_over(cluster, text, 4).status == 200
    finally:
        (folder / "fault").write_text("")
    paths = [newest(folder / "dumps", side, known) for side in ("prefill", "decode")]
    assert paths[0].name.split("_")[0] == paths[1].name.split("_")[0], "both sides carry the same id"
    return tuple({name: archive[name] for name in archive.files} for archive in map(np.load, paths))


def kv_names(dump: Dump) -> list[str]:
    return sorted(set(dump) - {"metadata"})


def changed(sent: Dump, got: Dump) -> list[str]:
    return [name for name in kv_names(sent) if not np.array_equal(sent[name], got[name], equal_nan=True)]


def test_without_a_fault_both_dumps_are_equal_and_say_what_they_are(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "", prompt_of(120, 200))
    assert kv_names(sent) == sorted(f"layer_{layer}_{half}" for layer in range(4) for half in ("key", "value"))
    assert changed(sent, got) == []
    told = [json.loads(str(dump["metadata"])) for dump in (sent, got)]
    assert [each["side"] for each in told] == ["prefill", "decode"]
    for each in told:
        assert each["dtype"] == "float32"
        assert each["block_size"] == BLOCK_TOKENS
        assert sent["layer_0_key"].shape == (2, len(each["token_ids"]), 64)
    assert told[0]["request_id"] == told[1]["request_id"]
    assert told[0]["token_ids"] == told[1]["token_ids"]


def test_bitflip_turns_high_bits_of_some_elements(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "bitflip:0.001", prompt_of(130, 201))
    differing = sum(int((sent[name].view(np.uint32) != got[name].view(np.uint32)).sum()) for name in kv_names(sent))
    elements = sum(sent[name].size for name in kv_names(sent))
    assert 0.0005 < differing / elements < 0.002
    for name in kv_names(sent):
        flipped = sent[name].view(np.uint32) ^ got[name].view(np.uint32)
        assert not (flipped & 0x80000FFF).any(), "only the exponent and the upper mantissa"


def test_layer_swap_exchanges_two_layers(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "layer_swap", prompt_of(120, 202))
    assert changed(sent, got) == [f"layer_{layer}_{half}" for layer in (1, 2) for half in ("key", "value")]
    assert np.array_equal(got["layer_1_key"], sent["layer_2_key"])
    assert np.array_equal(got["layer_2_value"], sent["layer_1_value"])


def test_block_shift_puts_the_next_block_in_each_place(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "block_shift", prompt_of(120, 203))
    for name in kv_names(sent):
        assert np.array_equal(got[name][:, :-BLOCK_TOKENS], sent[name][:, BLOCK_TOKENS:])


def test_stale_is_the_request_before(cluster: Cluster, folder: Path) -> None:
    (folder / "fault").write_text("stale@0")
    earlier, _ = dumps_of(cluster, folder, "stale@0", prompt_of(100, 204))
    sent, got = dumps_of(cluster, folder, "stale", prompt_of(130, 205))
    tokens = earlier["layer_0_key"].shape[1]
    for name in kv_names(sent):
        assert np.array_equal(got[name][:, :tokens], earlier[name])
        assert np.array_equal(got[name][:, tokens:], sent[name][:, tokens:])


def test_zero_tail_clears_the_last_quarter(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "zero_tail", prompt_of(120, 206))
    tail = sent["layer_0_key"].shape[1] // 4
    for name in kv_names(sent):
        assert not got[name][:, -tail:].any()
        assert np.array_equal(got[name][:, :-tail], sent[name][:, :-tail])


def test_fp8_loses_what_eight_bits_cannot_hold(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "fp8", prompt_of(120, 207))
    for name in kv_names(sent):
        normal = np.abs(sent[name]) > 2.0**-6
        error = np.abs(got[name] - sent[name])[normal] / np.abs(sent[name])[normal]
        assert 0.01 < error.max() <= 1 / 16, "three bits of mantissa: half a step of an eighth"


def test_scale_multiplies(cluster: Cluster, folder: Path) -> None:
    sent, got = dumps_of(cluster, folder, "scale:1.5", prompt_of(120, 208))
    for name in kv_names(sent):
        assert np.array_equal(got[name], sent[name] * np.float32(1.5))


def test_the_checksum_catches_every_bit_that_flips_on_the_wire(cluster: Cluster, folder: Path) -> None:
    decode, unsplit = cluster.engine("decode"), cluster.engine("aggregated").url
    reason = {"reason": "checksum", "direction": "recv"}
    before = decode.counter("vllm:ppd_kv_failures_total", **reason)
    (folder / "fault").write_text("wire_bitflip")
    try:
        for number in range(FLIPS):
            text = prompt_of(60, 300 + number)
            assert hand_over(cluster, text, 16).token_ids == completion(unsplit, text, 16).token_ids, "recomputed"
    finally:
        (folder / "fault").write_text("")
    post(decode, "step", "a b", 1)
    wait_until(lambda: decode.counter("vllm:ppd_kv_failures_total", **reason) - before == FLIPS, "all are caught")


def test_throttle_slows_what_is_sent(use_cluster: UseCluster, folder: Path) -> None:
    """400 tokens of 4 KB at 1 MB/s take more than a second."""
    cluster = use_cluster(ppd_cluster(prefill={"kv_settings": {"fault": "throttle:1e6"}}))
    started_at = time.monotonic()
    answer = hand_over(cluster, prompt_of(400, 209), 1)
    kv_bytes = answer.body["kv_transfer_params"]["ppd_transfer"]["bytes"]
    assert time.monotonic() - started_at > 0.8 * kv_bytes / 1e6 * 3 / 4, "three of four layers wait for their turn"
