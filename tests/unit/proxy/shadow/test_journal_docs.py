"""docs/accuracy.md describes the table that there is, and its query works."""

import re
from pathlib import Path

from tests.support.journal import directly, row

from ppd_accuracy.verdicts.rows import APPLICATION_ID, SCHEMA_VERSION

DOCS = (Path(__file__).parents[4] / "docs" / "accuracy.md").read_text(encoding="utf-8")
TABLE = DOCS.partition("### Table `samples`")[2].partition("```")[0]


async def test_every_column_is_described(opened, path):
    await opened()
    described = [name for cell in re.findall(r"^\| (`[^|]*) \|", TABLE, re.M) for name in re.findall(r"`(\w+)`", cell)]
    columns = [name for _, name, *_ in directly(path, "PRAGMA table_info(samples)")]
    assert sorted(described) == sorted(columns)
    assert f"the version of this schema, {SCHEMA_VERSION}" in TABLE
    assert f"{APPLICATION_ID:#x}" in TABLE


async def test_the_example_query_works(opened, path):
    journal = await opened()
    now = directly(path, "SELECT unixepoch()")[0][0]
    for number, (pair, delta) in enumerate([("P>D", 0.5), ("P>D", float("nan")), (None, 0.1)]):
        journal.add(row(number, at=float(now - number), pair=pair, max_delta=delta, route="direct"))
    journal.add(row(3, at=now - 90_000.0))
    await journal.flush()
    query = re.search(r'journal\.db "(.*?)"', DOCS.partition("outcomes by pair")[2], re.S)[1]
    assert directly(path, query) == [("P>D", "same", 2, "nan", 2.0), ("direct", "same", 1, 0.1, 2.0)]
