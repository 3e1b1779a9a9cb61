"""Rows of the journal as columns and back, and what each storage leaves out."""

import math
import struct

import pytest
from tests.support.journal import NAN, equal, row

from ppd_accuracy.verdicts.rows import (
    SCHEMA_VERSION,
    SampleRow,
    decode,
    encode,
    is_known,
    readable,
    size_bytes,
    statements,
    token_hash,
    without_text,
)

LITTLE = SampleRow(sample_id="r", at=1.0, model="m", route="direct", method="replay", outcome="error", error="gone")


def test_what_was_encoded_is_decoded_with_nan_for_what_is_unknown() -> None:
    told = decode(encode(row(max_delta=NAN), "text"))
    assert equal(told["candidate_logprobs"], [-0.5, NAN])
    assert equal(told["margins"], [0.125, NAN])
    assert (told["ranks"], told["token_ids"]) == ([1, 0], [4, 4_000_000_000])
    assert math.isnan(told["max_delta"])
    assert (told["filled_by"], told["timings"], told["body"]) == (["10.0.0.1:8100"], {"score": 12.5}, row().body)


def test_a_row_that_knows_little_has_columns_for_it() -> None:
    told = decode(encode(LITTLE, "text"))
    assert told.keys() == encode(row(), "text").keys()
    assert (told["error"], told["token_ids"], told["replay"], told["prompt_hash"]) == ("gone", None, None, None)


@pytest.mark.parametrize(
    ("storage", "has_tokens", "has_text"), [("text", True, True), ("tokens", True, False), ("hashes", False, False)]
)
def test_a_storage_keeps_no_more_than_it_says(storage: str, has_tokens: bool, has_text: bool) -> None:
    columns = encode(row(), storage)
    assert (columns["token_ids"] is not None) == (columns["margins"] is not None) == has_tokens
    assert (columns["text"] is not None) == (columns["body"] is not None) == has_text
    assert (b"SECRET" in columns["replay"]) == has_text
    assert columns["answer_hash"] == token_hash([4, 4_000_000_000])
    kept = decode(columns)["replay"]
    assert (kept["finish_reason"], kept["n"], "token_hash" in kept) == ("stop", 2, storage == "hashes")


def test_only_the_storage_of_text_keeps_what_is_large() -> None:
    assert without_text(row(), "text") == row()
    short = without_text(row(), "tokens")
    assert (short.body, short.text, short.token_ids) == (None, None, row().token_ids)
    assert without_text(short, "tokens") is short
    assert size_bytes(short) < size_bytes(row())


@pytest.mark.parametrize("field", [{"token_ids": [-1]}, {"token_ids": [2**32]}, {"margins": [1e300]}])
def test_numbers_that_do_not_fit_are_refused(field: dict[str, list[float]]) -> None:
    with pytest.raises((struct.error, OverflowError)):
        encode(row(**field), "tokens")


def test_a_long_error_is_cut_and_half_a_character_is_shown() -> None:
    assert len(encode(row(error="x" * 10_000), "hashes")["error"]) == 500
    assert readable("a\ud83d\x00b") == "a\\ud83d\x00b"


def test_an_older_schema_is_taken_over_and_a_newer_one_is_not() -> None:
    assert [is_known(version) for version in (1, SCHEMA_VERSION, SCHEMA_VERSION + 1)] == [True, True, False]
    assert statements(1)[0].startswith("ALTER TABLE")
    assert statements(0) == statements(SCHEMA_VERSION) == statements(1)[1:]
