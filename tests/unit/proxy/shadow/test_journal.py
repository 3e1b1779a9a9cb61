import math
import stat

import pytest
from tests.support.journal import NAN, directly, equal, row

from ppd_accuracy.verdicts.rows import SampleRow, token_hash
from ppd_proxy.shadow.journal import MAX_WAITING_BYTES, MAX_WAITING_ROWS

# What is kept


async def test_a_row_comes_back_as_it_was(opened):
    journal = await opened()
    journal.add(row())
    assert await journal.flush()
    got = await journal.get("r0")
    wanted = {name: getattr(row(), name) for name in SampleRow.__struct_fields__} | {
        "seq": 1,
        "filled_by": ["10.0.0.1:8100"],
        "ranks": [1, 0],
        "margins": [0.125, NAN],
        "prompt_hash": token_hash([1, 2, 3]),
        "answer_hash": token_hash([4, 4_000_000_000]),
    }
    assert equal(got, wanted)


async def test_a_row_that_knows_little_comes_back_too(opened):
    journal = await opened()
    row = {"route": "direct", "method": "replay", "outcome": "error", "error": "gone"}
    journal.add(SampleRow(sample_id="r", at=1.0, model="m", **row))
    await journal.flush()
    got = await journal.get("r")
    assert [got[name] for name in ("error", "token_ids", "replay", "timings")] == ["gone", None, None, {}]


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, 0.0])
async def test_single_numbers_survive_whatever_they_are(opened, value):
    journal = await opened()
    journal.add(row(max_delta=value))
    await journal.flush()
    assert equal((await journal.get("r0"))["max_delta"], value)
    assert equal((await journal.latest(1))[0]["max_delta"], value)


async def test_a_delta_that_is_no_number_is_found_above_every_threshold(opened, path):
    journal = await opened()
    journal.add(row(0, max_delta=NAN))
    journal.add(row(1, max_delta=0.1))
    await journal.flush()
    assert directly(path, "SELECT sample_id FROM samples WHERE max_delta > 1000") == [("r0",)]


async def test_text_with_half_a_character_is_kept_readable(opened):
    journal = await opened()
    journal.add(row(text="a\ud83d\x00b", error="x" * 10_000))
    await journal.flush()
    got = await journal.get("r0")
    assert (got["text"], len(got["error"])) == ("a\\ud83d\x00b", 500)


async def test_hashes_keep_neither_tokens_nor_text(opened, path):
    journal = await opened("hashes")
    journal.add(row())
    await journal.flush()
    got = await journal.get("r0")
    assert got["prompt_hash"] == token_hash([1, 2, 3]) != got["answer_hash"]
    contents = ("prompt_token_ids", "token_ids", "candidate_logprobs", "baseline_logprobs", "ranks", "margins")
    assert [got[name] for name in (*contents, "body", "text")] == [None] * 8
    assert got["replay"] == {"finish_reason": "stop", "n": 2, "token_hash": token_hash([4, 5])}
    assert got["max_delta"] == 0.25
    await journal.close()
    assert b"SECRET" not in path.read_bytes()


async def test_tokens_keep_no_text(opened, path):
    journal = await opened("tokens")
    journal.add(row())
    await journal.flush()
    got = await journal.get("r0")
    assert (got["token_ids"], got["body"], got["text"]) == ([4, 4_000_000_000], None, None)
    assert equal(got["replay"], {"token_ids": [4, 5], "logprobs": [-0.5, NAN], "finish_reason": "stop", "n": 2})
    await journal.close()
    assert b"SECRET" not in path.read_bytes()


async def test_with_storage_none_there_is_no_file(opened, path):
    journal = await opened("none")
    journal.add(row())
    assert await journal.flush()
    assert (await journal.count(), await journal.latest(5), await journal.get("r0")) == (0, [], None)
    await journal.prune(1e12)
    assert (journal.dropped, path.exists()) == (0, False)


async def test_nobody_else_may_read_the_file(opened, path):
    await opened()
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


# Reading


async def test_latest_are_newest_first_and_come_in_pages(opened):
    journal = await opened()
    for number in range(5):
        journal.add(row(number))
    await journal.flush()
    first = await journal.latest(2)
    assert [got["sample_id"] for got in first] == ["r4", "r3"]
    second = await journal.latest(2, before=first[-1]["seq"])
    assert [got["sample_id"] for got in second] == ["r2", "r1"]
    assert "body" not in first[0]
    assert first[0]["timings"] == {"score": 12.5}


async def test_latest_can_be_limited_to_an_outcome_and_a_route(opened):
    journal = await opened()
    for number, (outcome, route) in enumerate([("same", "pd"), ("differs", "pd"), ("differs", "direct")]):
        journal.add(row(number, outcome=outcome, route=route))
    await journal.flush()
    assert [got["sample_id"] for got in await journal.latest(9, outcome="differs")] == ["r2", "r1"]
    assert [got["sample_id"] for got in await journal.latest(9, outcome="differs", route="pd")] == ["r1"]
    assert await journal.latest(9, outcome="'; DROP TABLE samples; --") == []
    assert await journal.count() == 3


async def test_a_limit_that_makes_no_sense_is_refused(opened):
    journal = await opened()
    with pytest.raises(ValueError, match="limit is 0"):
        await journal.latest(0)


async def test_an_unknown_sample_is_none(opened):
    assert await (await opened()).get("nobody") is None


async def test_a_later_row_of_a_sample_replaces_the_earlier_one(opened):
    journal = await opened()
    journal.add(row(0, outcome="differs"))
    journal.add(row(0, method="replay", outcome="same"))
    await journal.flush()
    assert await journal.count() == 1
    assert (await journal.get("r0"))["method"] == "replay"


# Bounds


async def test_no_more_rows_than_allowed_are_kept(opened):
    journal = await opened(max_rows=10)
    for number in range(700):  # more than one transaction's worth
        journal.add(row(number))
    await journal.flush()
    assert await journal.count() == 10
    assert [got["sample_id"] for got in await journal.latest(20)][::9] == ["r699", "r690"]


async def test_rows_that_are_too_old_go_when_newer_ones_come(opened):
    journal = await opened(max_age_s=60)
    journal.add(row(0, at=1000.0))
    journal.add(row(1, at=1050.0))
    await journal.flush()
    assert await journal.count() == 2
    journal.add(row(2, at=1061.0))
    await journal.flush()
    assert [got["sample_id"] for got in await journal.latest(5)] == ["r2", "r1"]


async def test_rows_that_are_too_old_can_be_deleted_where_none_come(opened, path):
    journal = await opened(max_age_s=60)
    journal.add(row(0, at=1000.0))
    await journal.flush()
    await journal.prune(1060.0)
    assert await journal.count() == 1
    await journal.prune(1060.5)
    assert await journal.count() == 0
    await journal.close()
    assert b"SECRET" not in path.read_bytes()


async def test_bounds_hold_for_what_an_earlier_run_wrote(opened):
    first = await opened()
    for number in range(20):
        first.add(row(number))
    await first.close()
    second = await opened(max_rows=5)
    second.add(row(20))
    await second.flush()
    assert [got["sample_id"] for got in await second.latest(9)] == ["r20", "r19", "r18", "r17", "r16"]


async def test_rows_beyond_the_buffer_are_dropped_and_counted(opened):
    heard = []
    journal = await opened(on_dropped=heard.append)
    for number in range(MAX_WAITING_ROWS + 3):
        journal.add(row(number))
    assert (journal.dropped, heard) == (3, ["journal_full"] * 3)
    await journal.flush()
    journal.add(row(MAX_WAITING_ROWS + 3))
    await journal.flush()
    assert (journal.dropped, journal.written) == (3, MAX_WAITING_ROWS + 1)


async def test_large_rows_fill_the_buffer_by_their_size(opened):
    journal = await opened()
    body = bytes(MAX_WAITING_BYTES // 2 - 4096)
    for number in range(3):
        journal.add(row(number, body=body))
    assert journal.dropped == 1
    slim = await opened("tokens", path=journal._path.with_name("slim.db"))
    for number in range(3):
        slim.add(row(number, body=body))
    assert slim.dropped == 0
