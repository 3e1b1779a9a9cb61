"""Each patch of `connector_patches/patches/` on every release of its range: it applies, and the patched code behaves.

The source comes out of the published wheels. What surrounds the two patched modules is stubbed: torch is numpy, NCCL is
a pair of queues, the pinned memory pool is a dict, the connector base and the other names of vLLM are empty
(`stubs.py` has the list). Sockets, threads, msgpack and the patched code are real. So this says nothing about NCCL,
CUDA or vLLM's scheduler.
"""

from __future__ import annotations

import re

import pytest
from tests.wheels import wheels
from tests.wheels.cases import (
    D_BLOCKS,
    KEY,
    MALFORMED,
    P_BLOCKS,
    PROMPT,
    UNTAGGED,
    as_decode,
    as_prefill,
    every_release,
    fetching,
    tag,
)
from tests.wheels.releases import CONNECTOR, ENGINE, PATCHES, RANGES, load, patch_of, run_patch, stock_tree
from tests.wheels.side import LAYERS
from tests.wheels.stubs import tensor

pytestmark = pytest.mark.wheels


def test_every_patch_file_has_a_range():
    assert {path.name for path in PATCHES.glob("*.patch")} == set(RANGES)


def test_the_readme_names_every_patch_and_release():
    rows = [line for line in (PATCHES / "README.md").read_text().splitlines() if ".patch`" in line and "|" in line]
    named = {re.findall(r"`([^`]+\.patch)`", row)[0]: tuple(re.findall(r"\b0\.\d+\.\d+(?:\.\d+)?\b", row.split("|")[2]))
             for row in rows}  # fmt: skip
    assert named == RANGES


@every_release
def test_patch_applies_without_fuzz_or_rejects(version, tmp_path):
    finished = run_patch(patch_of(version), stock_tree(version, tmp_path))
    assert finished.returncode == 0, finished.stdout
    assert "fuzz" not in finished.stdout
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".rej", ".orig")]


@every_release
def test_patch_touches_only_the_two_files_and_can_be_undone(version, tmp_path):
    stock_tree(version, tmp_path)
    published = {path: path.read_text() for path in tmp_path.rglob("*.py")}
    run_patch(patch_of(version), tmp_path)
    changed = {path for path, text in published.items() if path.read_text() != text}
    assert changed == {tmp_path / ENGINE, tmp_path / CONNECTOR}
    run_patch(patch_of(version), tmp_path, "--reverse")
    assert {path: path.read_text() for path in tmp_path.rglob("*.py")} == published


@every_release
def test_no_other_patch_applies(version, tmp_path):
    stock_tree(version, tmp_path)
    for name in set(RANGES) - {patch_of(version).name}:
        assert run_patch(PATCHES / name, tmp_path, "--dry-run").returncode != 0, name


@pytest.mark.parametrize("version", ["0.24.0", "0.29.0"])
def test_later_releases_have_nothing_to_patch(version):
    assert not wheels.has_wheel_file(version, ENGINE)


@every_release
def test_failed_blocks_are_reported_where_vllm_asks_for_them(version):
    release = load(version)
    reports = hasattr(release.connector.P2pNcclConnector, "get_block_ids_with_load_errors")
    assert reports == release.reports_failed_blocks


@every_release
def test_both_sides_derive_the_same_key(version):
    key = load(version).engine.transfer_key
    assert key(as_prefill(tag())) == key(as_decode(tag())) == key(tag()) == key(f"1_cmpl-{tag()}") == KEY


@every_release
@pytest.mark.parametrize("mode", ["PUT", "PUT_ASYNC"])
def test_kv_arrives_under_different_engine_suffixes(version, mode, sides):
    prefill, decode = (sides(version, producer=producer, send_type=mode) for producer in (True, False))
    request_tag = tag(prefill.address, decode.address)
    prefill.fill()
    prefill.schedule(as_prefill(request_tag), P_BLOCKS, PROMPT)
    prefill.save()
    decode.schedule(as_decode(request_tag), D_BLOCKS, PROMPT)
    decode.load()
    for layer in LAYERS:
        assert decode.tokens(layer, D_BLOCKS, PROMPT) == prefill.tokens(layer, P_BLOCKS, PROMPT)
    if decode.release.reports_failed_blocks:
        assert decode.worker.get_block_ids_with_load_errors() == set()


@fetching
def test_kv_is_fetched_under_different_engine_suffixes(version, sides):
    prefill, decode = (sides(version, producer=producer, send_type="GET") for producer in (True, False))
    request_tag = tag(prefill.address, decode.address)
    prefill.fill()
    prefill.schedule(as_prefill(request_tag), P_BLOCKS, PROMPT)
    prefill.save()
    decode.schedule(as_decode(request_tag), D_BLOCKS, PROMPT)
    decode.load()
    assert decode.tokens(LAYERS[1], D_BLOCKS, PROMPT) == prefill.tokens(LAYERS[1], P_BLOCKS, PROMPT)


@every_release
def test_a_finished_request_frees_what_it_received(version, sides):
    decode = sides(version, producer=False)
    decode.engine.recv_store.update({f"{KEY}#{layer}": tensor([1.0]) for layer in LAYERS})
    decode.engine.recv_store["f" * 32 + "#0"] = tensor([1.0])
    decode.worker.get_finished({as_decode(tag()), "cmpl-direct-0"})
    assert set(decode.engine.recv_store) == {"f" * 32 + "#0"}


@every_release
def test_a_request_without_a_tag_is_computed_by_the_decode_engine(version, shared):
    decode = shared(version, producer=False)
    for request_id in UNTAGGED + MALFORMED:
        assert decode.matched(request_id, PROMPT) == (0, False), request_id
        assert decode.schedule(request_id, D_BLOCKS, PROMPT).requests == [], request_id
        decode.load()
        assert decode.worker.get_finished({request_id}) == (None, None), request_id


@every_release
@pytest.mark.parametrize("chunk", [0, 6])
def test_the_prefill_engine_sends_nothing_for_a_request_without_a_tag(version, chunk, shared):
    prefill = shared(version, producer=True)
    for request_id in UNTAGGED + MALFORMED:
        steps = [prefill.schedule(request_id, P_BLOCKS, PROMPT, chunk=chunk)]
        prefill.save()
        if chunk:  # the prompt takes a second step
            steps.append(prefill.schedule_again(request_id, chunk, PROMPT - chunk, ([4],)))
            prefill.save()
        steps.append(prefill.schedule_again(request_id, PROMPT, 1))
        prefill.save()
        assert not any(step.requests for step in steps), request_id
        assert prefill.worker.get_finished({request_id}) == (None, None), request_id
    assert not prefill.engine.socks


@every_release
def test_a_malformed_tag_is_logged(version, caplog):
    key = load(version).engine.transfer_key
    key.cache_clear()
    assert [key(request_id) for request_id in MALFORMED] == [None] * len(MALFORMED)
    assert [record.args for record in caplog.records] == [(request_id,) for request_id in MALFORMED]
    caplog.clear()
    assert [key(request_id) for request_id in UNTAGGED] == [None] * len(UNTAGGED)
    assert not caplog.records


@every_release
def test_the_prefill_engine_survives_a_tagged_request_that_decodes_on(version, shared):
    prefill = shared(version, producer=True)
    request_id = as_prefill(tag())
    assert len(prefill.schedule(request_id, P_BLOCKS, PROMPT).requests) == 1
    assert prefill.schedule_again(request_id, PROMPT, 1).requests == []
    assert prefill.schedule_again(request_id, 12, 1, ([4],)).requests == []


@every_release
def test_a_chunk_may_need_no_new_block(version, shared):
    prefill = shared(version, producer=True)
    request_id = as_prefill(tag())
    assert prefill.schedule(request_id, P_BLOCKS, PROMPT, chunk=9).requests == []
    (sent,) = prefill.schedule_again(request_id, 9, 1).requests
    assert sent.request_id == request_id


@every_release
def test_children_of_one_request_share_the_received_kv(version, sides):
    prefill, decode = (sides(version, producer=producer) for producer in (True, False))
    request_tag = tag(prefill.address, decode.address)
    prefill.fill()
    prefill.schedule(as_prefill(request_tag), P_BLOCKS, PROMPT)
    prefill.save()
    for child, blocks in enumerate((D_BLOCKS, [0, 4, 5])):
        decode.schedule(f"{child}_{as_decode(request_tag)}", blocks, PROMPT)
        decode.load()
        assert decode.tokens(LAYERS[0], blocks, PROMPT) == prefill.tokens(LAYERS[0], P_BLOCKS, PROMPT)
    for child in range(2):
        decode.worker.get_finished({f"{child}_{as_decode(request_tag)}"})
    assert not decode.engine.recv_store
