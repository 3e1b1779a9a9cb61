"""history: runs in one file, compared with those before them."""

import sqlite3
import stat

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.reports import equal, failed, parted, published, side, written
from tests.support.journal import row

from ppd_acc.outcome import Exit, Mistake
from ppd_acc.reports.history import default_path
from ppd_acc.reports.trends import judge
from ppd_accuracy.verdicts import rows
from ppd_proxy.shadow.journal import Journal

DAY_S = 86_400
NOW = 1_800_000_000.0
"""What `run_command` has for a clock."""


def samples(bad, total=20, status="real"):
    """`total` samples, of which those in `bad` diverge."""
    return [parted(f"s{n}", status) if n in bad else equal(f"s{n}") for n in range(total)]


async def save(tmp_path, *bad, at=NOW, tag="t", status="real", total=20, **fields):
    path = written(tmp_path, *samples(bad, total, status), name=f"{at}-{tag}.json", created_at=at, **fields)
    return await run_command("history save", "--report", path, "--tag", tag, "--db", str(tmp_path / "h.db"))


async def history(tmp_path, name, *arguments):
    return await run_command(f"history {name}", "--db", str(tmp_path / "h.db"), *arguments)


async def test_one_run_is_no_trend(tmp_path):
    await save(tmp_path, 1)
    result = await history(tmp_path, "trend")
    assert result.exit == Exit.INCONCLUSIVE
    assert "a trend needs two" in result.data["groups"][0]["decision"]["reason"]


async def test_ten_new_faults_are_worse_by_mcnemar(tmp_path):
    await save(tmp_path, at=1.0)
    await save(tmp_path, *range(10), at=2.0)
    result = await history(tmp_path, "trend")
    decision = result.data["groups"][0]["decision"]
    assert (result.exit, decision["outcome"]) == (Exit.DIFFERENT, "fail")
    assert decision["p"] == pytest.approx(2 / 2**10)


async def test_ten_faults_that_are_gone_are_better(tmp_path):
    await save(tmp_path, *range(10), at=1.0)
    await save(tmp_path, at=2.0)
    assert (await history(tmp_path, "trend")).exit == Exit.PASS


async def test_five_new_against_two_gone_is_inconclusive(tmp_path):
    await save(tmp_path, 0, 1, at=1.0)
    await save(tmp_path, *range(5, 10), at=2.0)
    result = await history(tmp_path, "trend")
    decision = result.data["groups"][0]["decision"]
    assert result.exit == Exit.INCONCLUSIVE
    assert decision["p"] == pytest.approx(0.4531, abs=5e-5)
    assert decision["more_samples"] > 0


async def test_the_same_result_again_passes(tmp_path):
    await save(tmp_path, 3, 4, at=1.0)
    await save(tmp_path, 3, 4, at=2.0)
    assert (await history(tmp_path, "trend")).exit == Exit.PASS


async def test_ties_count_only_when_asked_for(tmp_path):
    await save(tmp_path, at=1.0)
    await save(tmp_path, *range(10), at=2.0, status="tie")
    assert (await history(tmp_path, "trend")).exit == Exit.PASS
    assert (await history(tmp_path, "trend", "--metric", "divergent")).exit == Exit.DIFFERENT


async def test_other_tags_models_and_datasets_are_not_mixed(tmp_path):
    await save(tmp_path, at=1.0, tag="a")
    await save(tmp_path, *range(10), at=2.0, tag="b")
    result = await history(tmp_path, "trend")
    assert result.exit == Exit.INCONCLUSIVE
    assert len(result.data["groups"]) == 2
    await save(tmp_path, *range(10), at=3.0, tag="a", datasets=[])
    assert len((await history(tmp_path, "trend")).data["groups"]) == 3
    assert len((await history(tmp_path, "trend", "--tag", "a")).data["groups"]) == 2


async def test_many_groups_are_no_reason_for_an_alarm(tmp_path):
    """6 new faults: p 0.03125, and over ten groups Holm wants 0.005."""
    await save(tmp_path, at=1.0)
    await save(tmp_path, *range(6), at=2.0)
    assert (await history(tmp_path, "trend")).exit == Exit.DIFFERENT
    for number in range(9):
        await save(tmp_path, 1, at=1.0, tag=f"other{number}")
        await save(tmp_path, 2, at=2.0, tag=f"other{number}")
    assert (await history(tmp_path, "trend")).exit == Exit.INCONCLUSIVE


async def test_the_same_report_is_saved_once(tmp_path):
    assert (await save(tmp_path, 1)).data["is_new"]
    again = await save(tmp_path, 1)
    assert not again.data["is_new"]
    assert "saved twice it would count twice" in again.notes[0]
    assert len((await history(tmp_path, "list")).data["runs"]) == 1


async def test_the_last_runs_alone_are_compared(tmp_path):
    await save(tmp_path, *range(10), at=1.0)
    await save(tmp_path, at=2.0)
    await save(tmp_path, at=3.0)
    told = (await history(tmp_path, "trend", "--last", "2")).data["groups"][0]
    assert [run["at"] for run in told["runs"]] == [2.0, 3.0]


def test_against_several_runs_a_wavering_sample_counts_little():
    """Ten samples were bad in every second run, and are bad now: half a change each, and p = 2 / 2**10."""
    ids = [f"s{n}" for n in range(10)]
    sound, bad = dict.fromkeys(ids, False), dict.fromkeys(ids, True)
    assert judge([sound, bad], bad, 0.05, 42).p == pytest.approx(2 / 2**10)
    assert judge([bad, bad], bad, 0.05, 42).outcome == "pass"
    assert judge([sound, sound], {**sound, "s1": True}, 0.05, 42).outcome == "inconclusive"


def test_runs_without_a_common_id_are_compared_by_fishers_test():
    one = {f"a{n}": n < 5 for n in range(100)}
    other = {f"b{n}": n < 15 for n in range(100)}
    decision = judge([one], other, 0.05, 42)
    assert decision.p == pytest.approx(0.03172, abs=5e-6)
    assert decision.outcome == "fail"


async def test_errors_are_no_results(tmp_path):
    await save(tmp_path, at=1.0)
    path = written(tmp_path, *[failed(f"s{n}") for n in range(20)], name="errors.json", created_at=2.0)
    await run_command("history save", "--report", path, "--tag", "t", "--db", str(tmp_path / "h.db"))
    assert (await history(tmp_path, "trend")).exit == Exit.INCONCLUSIVE


async def test_numbers_that_no_journal_holds_are_a_mistake_and_nothing_is_saved(tmp_path):
    sample = equal("s0", target=side([-1, 2**40]), baseline=side([-1, 2**40]))
    path = written(tmp_path, equal("first"), sample)
    with pytest.raises(Mistake, match="sample s0"):
        await run_command("history save", "--report", path, "--db", str(tmp_path / "h.db"))
    assert (await history(tmp_path, "list")).data["runs"] == []


async def test_old_runs_are_purged_but_the_newest_stay(tmp_path):
    for days in (30, 20, 10, 1):
        await save(tmp_path, days, at=NOW - days * DAY_S)
    dry = await history(tmp_path, "purge", "--older-than", "5", "--keep-last", "2", "--dry-run")
    assert len(dry.data["removed"]) == 2
    assert len((await history(tmp_path, "list")).data["runs"]) == 4
    done = await history(tmp_path, "purge", "--older-than", "5", "--keep-last", "2")
    assert [run["at"] for run in done.data["removed"]] == [NOW - 30 * DAY_S, NOW - 20 * DAY_S]
    assert len((await history(tmp_path, "list")).data["runs"]) == 2
    connection = sqlite3.connect(tmp_path / "h.db")
    assert connection.execute("SELECT count(*), count(DISTINCT run) FROM run_samples").fetchone() == (40, 2)
    assert connection.execute("SELECT count(*) FROM samples").fetchone() == (40,)
    connection.close()


async def test_the_table_of_samples_is_the_journals(tmp_path):
    await save(tmp_path, 1)
    connection = sqlite3.connect(tmp_path / "h.db")
    assert connection.execute("PRAGMA application_id").fetchone() == (rows.APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (rows.SCHEMA_VERSION,)
    connection.row_factory = sqlite3.Row
    told = connection.execute(f"SELECT {rows.ALL_COLUMNS} FROM samples WHERE sample_id = '1/s1'").fetchone()
    connection.close()
    found = rows.decode(dict(told))
    assert (found["outcome"], found["method"], found["answer_tokens"]) == ("diverged", "replay", 10)
    assert found["token_ids"] == [*range(7), 1000, 1001, 1002]
    assert found["baseline_logprobs"][:7] == pytest.approx([-0.1] * 7)
    assert found["baseline_logprobs"][7] != found["baseline_logprobs"][7]
    assert found["text"] is None
    assert stat.S_IMODE((tmp_path / "h.db").stat().st_mode) == 0o600


async def test_a_history_of_an_older_version_is_taken_over(tmp_path):
    await save(tmp_path, 1)
    connection = sqlite3.connect(tmp_path / "h.db")
    connection.execute("ALTER TABLE samples DROP COLUMN spread")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    await save(tmp_path, 2)
    assert len((await history(tmp_path, "list")).data["runs"]) == 2
    connection = sqlite3.connect(tmp_path / "h.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (rows.SCHEMA_VERSION,)
    connection.close()


async def test_a_proxys_journal_is_left_alone(tmp_path):
    journal = await Journal.open(tmp_path / "h.db", max_rows=10, max_age_s=1e9, storage="tokens")
    journal.add(row())
    await journal.close()
    with pytest.raises(Mistake, match="a proxy's journal"):
        await save(tmp_path, 1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.write_text("no database at all, however long" * 40), id="text"),
        pytest.param(lambda path: sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close(), id="other"),
    ],
)
async def test_another_programs_file_is_a_mistake(tmp_path, make):
    make(tmp_path / "h.db")
    with pytest.raises(Mistake, match="--db"):
        await save(tmp_path, 1)


async def test_no_history_is_a_mistake_and_makes_no_file(tmp_path):
    for name, more in (("list", ()), ("trend", ()), ("purge", ("--older-than", "1"))):
        with pytest.raises(Mistake, match="no history there"):
            await history(tmp_path, name, *more)
    assert not (tmp_path / "h.db").exists()


async def test_the_published_tools_reports_and_directory_are_taken(tmp_path):
    result_row = {"prompt": "p", "baseline_output": "x", "target_output": "y"}
    for number in range(2):
        path = published(tmp_path, {"sample_id": 1, "exact_match": bool(number), **result_row}, name=f"{number}.json")
        await run_command("history save", "--report", path, "--history-dir", str(tmp_path / "h"))
    result = await run_command("history trend", "--history-dir", str(tmp_path / "h"), "--fail-on-regression")
    assert result.exit == Exit.INCONCLUSIVE
    assert len(result.data["groups"][0]["runs"]) == 2


def test_the_default_is_under_the_xdg_data_directory():
    assert str(default_path({"XDG_DATA_HOME": "/data", "HOME": "/h"})) == "/data/ppd-acc/history.db"
    assert str(default_path({"XDG_DATA_HOME": "relative", "HOME": "/h"})) == "/h/.local/share/ppd-acc/history.db"
