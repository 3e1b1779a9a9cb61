"""What a command writes never replaces what it reads, nor a file that --json took by mistake."""

import json

import pytest

from ppd_proxy.acc import main as program
from ppd_proxy.acc.command import Exit


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text('{"kind": "batch-compare", "version": 1, "samples": []}')
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "prompt": "x"}\n')
    (tmp_path / "link.json").symlink_to("report.json")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("report --input report.json --output report.json", "--output report.json: is the input, too"),
        ("report --input link.json --output ./report.json", "--output ./report.json: is the input, too"),
        ("filter --input report.json --output report.json", "--output report.json: is the input, too"),
        ("explain --report report.json --sample a --json report.json", "--json report.json: is the input, too"),
        ("batch-compare --dataset rows.jsonl --output rows.jsonl", "--output rows.jsonl: is the input, too"),
        ("batch-compare --dataset rows.jsonl --journal rows.jsonl", "--journal rows.jsonl: is the input, too"),
        ("batch-compare --dataset rows.jsonl --csv rows.jsonl", "--csv rows.jsonl: is the input, too"),
        ("summary --json report.json", "--json report.json: is there, and is not what --json wrote"),
        ("dataset-stats --json rows.jsonl", "--json rows.jsonl: is there, and is not what --json wrote"),
    ],
)
def test_inputs_stay_as_they_are(directory, capsys, line, told):
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert program.main(line.split()) == Exit.USAGE
    assert told in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_result_is_replaced_by_the_next_one(directory):
    for _ in range(2):
        assert program.main(["profiles", "-q", "--json", "told.json"]) == Exit.PASS
    (directory / "empty.json").touch()
    assert program.main(["profiles", "-q", "--json", "empty.json"]) == Exit.PASS
    assert json.loads((directory / "empty.json").read_text())["kind"] == "profiles"
