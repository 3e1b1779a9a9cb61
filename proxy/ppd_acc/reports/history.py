"""Saved runs: one SQLite file with the journal's table of samples, and a table of runs beside it.

The schema is the journal's (ppd_accuracy/verdicts/rows.py), application id and version too, so whatever reads a
journal reads this. A sample's id there is `RUN/ID`; `run_samples` has the status and the id it had in its report. Owns
the connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ppd_acc.data.report import Report, Sample, Status
from ppd_acc.data.totals import totals_in
from ppd_acc.outcome import Mistake, Trouble
from ppd_accuracy.verdicts import rows
from ppd_accuracy.verdicts.rows import SampleRow, Storage
from ppd_shell.sqlite import identity, opened_private, transaction

_BUSY_TIMEOUT_S = 10.0
_RUNS = (
    """CREATE TABLE IF NOT EXISTS runs (
        run INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, saved_at REAL NOT NULL, tag TEXT NOT NULL,
        model TEXT NOT NULL, baseline TEXT, target TEXT, dataset TEXT NOT NULL, dataset_sha256 TEXT NOT NULL,
        report TEXT NOT NULL, report_sha256 TEXT NOT NULL, settings TEXT NOT NULL, noise TEXT NOT NULL,
        totals TEXT NOT NULL, UNIQUE (report_sha256, tag))""",
    """CREATE TABLE IF NOT EXISTS run_samples (
        run INTEGER NOT NULL REFERENCES runs (run) ON DELETE CASCADE, id TEXT NOT NULL, status TEXT NOT NULL,
        sample_id TEXT NOT NULL, PRIMARY KEY (run, id)) WITHOUT ROWID""",
)
_OUTCOMES: tuple[tuple[Status, str], ...] = (
    ("equal", "exact"), ("tie", "tie"), ("real", "diverged"), ("unclassified", "unscorable"), ("error", "error"),
    ("empty", "unscorable"),
)  # fmt: skip
"""What the journal calls our statuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A saved run. Times are Unix seconds: `at` of the report, `saved_at` of saving it."""

    run: int
    at: float
    saved_at: float
    tag: str
    model: str
    baseline: str | None
    target: str | None
    dataset: str
    dataset_sha256: str
    report: str
    totals: Mapping[str, Any]

    @property
    def group(self) -> tuple[str, str, str]:
        """Runs that may be compared: same dataset, model and tag."""
        return self.dataset_sha256, self.model, self.tag


def default_path(environment: Mapping[str, str]) -> Path:
    """Under the XDG data directory."""
    home = environment.get("XDG_DATA_HOME") or ""
    base = Path(home) if os.path.isabs(home) else Path(environment.get("HOME") or Path.home()) / ".local" / "share"
    return base / "ppd-acc" / "history.db"


@contextlib.contextmanager
def opened(path: Path, *, is_made: bool) -> Iterator[History]:
    """The history at `path`, made where it may be. Raises Mistake for a file that is another program's or a proxy's
    journal, or that is not there; Trouble where the disk does not do its part."""
    try:
        is_new = not path.exists()
        if is_new and not is_made:
            raise Mistake(f"--db {path}: no history there; ppd-acc history save begins one")
        if is_new:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = opened_private(path, busy_timeout_s=_BUSY_TIMEOUT_S, is_made=is_new)  # it may hold prompts
    except (OSError, sqlite3.Error) as error:
        raise Trouble(f"--db {path}: {error}") from None
    try:
        _refuse_others(connection, path)
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        with transaction(connection):
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            for statement in (*rows.statements(version), *_RUNS):
                connection.execute(statement)
        yield History(connection)
    except sqlite3.OperationalError as error:
        raise Trouble(f"--db {path}: {error}") from None
    except sqlite3.DatabaseError as error:
        raise Mistake(f"--db {path}: damaged, or no SQLite file ({error}); give another path") from None
    finally:
        connection.close()


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    application_id, version, names = identity(connection)
    if not (application_id or version or names):
        return
    if application_id != rows.APPLICATION_ID:
        raise Mistake(f"--db {path}: it is another program's database; give another path")
    if not rows.is_known(version):
        raise Mistake(f"--db {path}: its schema is version {version}; this program knows {rows.SCHEMA_VERSION}")
    if "samples" in names and "runs" not in names:
        raise Mistake(f"--db {path}: it is a proxy's journal, which deletes old rows; give another path")


class History:
    """Made by `opened`. Every change is one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def save(
        self, report: Report, *, path: str, sha256: str, tag: str, storage: Storage, now: float
    ) -> tuple[int, bool]:
        """The run's number, and whether it was saved now; the same report under the same tag is saved once."""
        with transaction(self._connection):
            saved = self._connection.execute(
                "SELECT run FROM runs WHERE report_sha256 = ? AND tag = ?", (sha256, tag)
            ).fetchone()
            if saved is not None:
                return int(saved["run"]), False
            engine = report.target or report.baseline
            model = (engine.model if engine is not None else None) or ""
            cursor = self._connection.execute(
                "INSERT INTO runs (at, saved_at, tag, model, baseline, target, dataset, dataset_sha256, report,"
                " report_sha256, settings, noise, totals) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    report.created_at or now, now, tag, model,
                    report.baseline.url if report.baseline else None, report.target.url if report.target else None,
                    ", ".join(each.path for each in report.datasets), dataset_of(report), path, sha256,
                    _json(report.settings), _json(report.noise), _json(totals_in(report)),
                ),
            )  # fmt: skip
            run = int(cursor.lastrowid or 0)
            for sample in report.samples:
                row = row_of(sample, run, at=report.created_at or now, model=model)
                try:
                    columns = rows.encode(rows.without_text(row, storage), storage)
                except (ValueError, OverflowError, struct.error) as error:
                    raise Mistake(f"--report {path}: sample {sample.sample_id}: {error}") from None
                self._connection.execute(rows.INSERT, columns)
                self._connection.execute(
                    "INSERT INTO run_samples VALUES (?, ?, ?, ?)",
                    (run, rows.readable(sample.sample_id), sample.status, row.sample_id),
                )
        return run, True

    def runs(self, *, tag: str | None = None) -> list[Run]:
        """The oldest first."""
        saved = self._connection.execute(
            "SELECT * FROM runs WHERE ? IS NULL OR tag = ? ORDER BY at, run", (tag, tag)
        ).fetchall()
        names = Run.__dataclass_fields__
        return [
            Run(**{name: row[name] for name in names if name != "totals"}, totals=msgspec.json.decode(row["totals"]))
            for row in saved
        ]

    def statuses(self, run: int) -> dict[str, Status]:
        """By the ids of the report."""
        saved = self._connection.execute("SELECT id, status FROM run_samples WHERE run = ?", (run,))
        return {row["id"]: row["status"] for row in saved}

    def delete(self, runs: Sequence[int]) -> None:
        """With their samples."""
        with transaction(self._connection):
            for run in runs:
                self._connection.execute(
                    "DELETE FROM samples WHERE sample_id IN (SELECT sample_id FROM run_samples WHERE run = ?)", (run,)
                )
                self._connection.execute("DELETE FROM runs WHERE run = ?", (run,))


def dataset_of(report: Report) -> str:
    """What makes runs comparable: the datasets' sha256; of a report without them, that of its ids and prompts."""
    known = sorted(each.sha256 for each in report.datasets if each.sha256)
    if len(known) == 1:
        return known[0]
    asked: object = known or sorted((each.sample_id, each.prompt or _json(each.messages)) for each in report.samples)
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def row_of(sample: Sample, run: int, *, at: float, model: str) -> SampleRow:
    """A sample as the journal writes one: the target is the candidate. Logprobs of the baseline are of the tokens
    before the first difference only, as its other ones are of other tokens."""
    ids = [token for token in sample.target.tokens if isinstance(token, int)]
    has_ids = len(ids) == len(sample.target.tokens) and sample.unit == "tokens"
    shared = sample.baseline.logprobs[: sample.compared_tokens] if len(sample.target.logprobs) == len(ids) else []
    asked: dict[str, Any] = {"prompt": sample.prompt} if sample.messages is None else {"messages": sample.messages}
    times = {"baseline": sample.baseline.total_ms, "target": sample.target.total_ms}
    return SampleRow(
        sample_id=rows.readable(f"{run}/{sample.sample_id}"),
        at=at,
        model=model,
        route="compare",
        method="replay",
        outcome=dict(_OUTCOMES)[sample.status],
        prompt_tokens=sample.prompt_tokens,
        answer_tokens=len(sample.target.tokens) if sample.error is None else None,
        token_ids=ids if has_ids else None,
        candidate_logprobs=sample.target.logprobs or None,
        baseline_logprobs=[*shared, *[None] * (len(ids) - len(shared))] if shared else None,
        max_delta=sample.max_delta,
        mean_delta=sample.mean_delta,
        finish_reason=sample.target.finish_reason,
        replay={
            "first_difference": sample.first_divergence,
            "length_delta": len(sample.target.tokens) - len(sample.baseline.tokens),
            "shift": sample.flip.shift if sample.flip is not None else None,
            "has_same_finish": sample.has_same_finish,
            "finish_reason": sample.baseline.finish_reason,
            "differing": [each.part for each in sample.differences],
            "text": str(sample.baseline.said),
        },
        timings={name: value for name, value in times.items() if value is not None},
        body=msgspec.json.encode(asked),
        text=str(sample.target.said),
        error=sample.error_reason or sample.error,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
