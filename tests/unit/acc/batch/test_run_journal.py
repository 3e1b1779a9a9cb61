"""The journal of a run: what survives, what is dropped, and what is not mixed."""

import json

import pytest
from tests.support.acc.reports import rows_in

from ppd_acc.batch.run_journal import RunJournal, read_journal
from ppd_acc.outcome import Mistake, Trouble

SETTINGS = {"baseline": "http://a", "sampling": {"seed": 42}, "noise_floor": 20}
SAMPLE = b'{"sample_id":"x","status":"equal"}'


async def journal_of(path, rows, *, errors=()):
    journal = RunJournal.begin(path, SETTINGS)
    journal.start(b'{"floor":{"shifts":[0.25]}}')
    for row in rows:
        await journal.finished(row, (SAMPLE,), has_error=row in errors)
    journal.close()


async def test_what_was_finished_is_found_again_byte_for_byte(tmp_path):
    path = tmp_path / "j"
    await journal_of(path, (3, 1, 2))
    journal, found = RunJournal.resume(path, SETTINGS)
    journal.close()
    assert found.rows == {3: (SAMPLE,), 1: (SAMPLE,), 2: (SAMPLE,)}
    assert json.loads(found.start) == {"floor": {"shifts": [0.25]}}


@pytest.mark.parametrize("torn", [b'{"row":4,"samp', b'{"row":4,"has_error":false,"samples":[{"a":1}]}', b"\0\0\0\n"])
async def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, torn):
    path = tmp_path / "j"
    await journal_of(path, (0, 1))
    with path.open("ab") as file:
        file.write(torn)
    journal, found = RunJournal.resume(path, SETTINGS)
    assert sorted(found.rows) == [0, 1]
    await journal.finished(4, (SAMPLE,), has_error=False)
    journal.close()
    assert list(rows_in(path)) == [0, 1, 4]


async def test_a_run_that_goes_on_after_every_possible_cut_has_a_whole_journal(tmp_path):
    whole = tmp_path / "whole"
    await journal_of(whole, range(3))
    body = whole.read_bytes()
    for cut in range(len(body) + 1):
        path = tmp_path / "j"
        path.write_bytes(body[:cut])
        journal, found = RunJournal.resume(path, SETTINGS)
        for row in sorted(set(range(3)) - set(found.rows)):
            await journal.finished(row, (SAMPLE,), has_error=False)
        journal.close()
        assert sorted(rows_in(path)) == [0, 1, 2], cut


async def test_errors_are_not_finished(tmp_path):
    await journal_of(tmp_path / "j", (0, 1, 2), errors=(1,))
    assert sorted(read_journal(tmp_path / "j", SETTINGS).rows) == [0, 2]


async def test_other_settings_are_refused_and_named(tmp_path):
    path = tmp_path / "j"
    await journal_of(path, (0,))
    before = path.read_bytes()
    with pytest.raises(Mistake) as raised:
        RunJournal.resume(path, {**SETTINGS, "noise_floor": 3})
    assert "--noise-floor was 20 and is 3; give what it was" in str(raised.value)
    assert "sampling" not in str(raised.value)
    assert path.read_bytes() == before


async def test_of_nested_settings_only_the_values_that_differ_are_named(tmp_path):
    was = {
        "sampling": {"max_tokens": 64, "seed": 42}, "targets": ["http://a", "http://b"], "model": None,
        "datasets": [{"path": "p.jsonl", "sha256": "1"}],
    }  # fmt: skip
    now = {
        "sampling": {"max_tokens": 8, "seed": 42}, "targets": ["http://a", "http://c"], "model": "m",
        "datasets": [{"path": "p.jsonl", "sha256": "2"}],
    }  # fmt: skip
    RunJournal.begin(tmp_path / "j", was).close()
    with pytest.raises(Mistake) as raised:
        RunJournal.resume(tmp_path / "j", now)
    told = str(raised.value).partition(": ")[2].split("; ")
    assert told == [
        "--dataset has other content: its sha256 was 1 and is 2",
        "--model was not given and is m",
        "--max-tokens was 64 and is 8",
        "--target was http://b and is http://c",
        "give what it was, or run without --resume to begin anew",
    ]


async def test_a_broken_line_in_the_middle_is_told_with_its_number(tmp_path):
    path = tmp_path / "j"
    await journal_of(path, (0, 1))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"what?\n", *lines[2:]]))
    with pytest.raises(Mistake, match="line 3: not a line of this journal"):
        RunJournal.resume(path, SETTINGS)


def test_another_file_is_no_journal_and_stays_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\nmore\n", encoding="utf-8")
    with pytest.raises(Mistake, match="line 1: not a journal"):
        RunJournal.resume(path, SETTINGS)
    assert path.read_text(encoding="utf-8") == "my notes\nmore\n"


async def test_beginning_again_keeps_the_old_journal(tmp_path):
    await journal_of(tmp_path / "j", (0, 1))
    RunJournal.begin(tmp_path / "j", SETTINGS).close()
    assert list(rows_in(tmp_path / "j.old")) == [0, 1]
    assert list(rows_in(tmp_path / "j")) == []


@pytest.mark.parametrize("open_again", [RunJournal.resume, RunJournal.begin])
def test_two_runs_cannot_write_one_journal(tmp_path, open_again):
    journal, _ = RunJournal.resume(tmp_path / "j", SETTINGS)
    try:
        with pytest.raises(Mistake, match="another run is writing it"):
            open_again(tmp_path / "j", SETTINGS)
    finally:
        journal.close()


def test_a_disk_that_takes_nothing_is_trouble(tmp_path):
    with pytest.raises(Trouble, match="No such file or directory"):
        RunJournal.begin(tmp_path / "none" / "j", SETTINGS)
