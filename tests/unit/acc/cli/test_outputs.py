"""What a command writes never replaces what it reads, nor a file that --json took by mistake."""

import json

import pytest

from ppd_acc.cli import main as program
from ppd_acc.outcome import Exit


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


@pytest.mark.parametrize("prompt", ["word " * 100, "x" * 5000, "two\nlines", "nothing here", "."])
def test_a_prompt_is_no_path(directory, capsys, prompt):
    program.main(["profiles", "-q", "--json", "told.json"])
    line = ["sensitivity", "--baseline", "nowhere", "--target", "nowhere", "--prompt", prompt, "--json", "told.json"]
    assert program.main(line) == Exit.USAGE
    assert "--baseline is 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--json", "--output"])
def test_an_output_that_can_be_no_path_is_a_mistake(directory, capsys, flag):
    assert program.main(["report", "--input", "report.json", flag, "x" * 5000]) == Exit.USAGE
    err = capsys.readouterr().err
    assert flag in err
    assert "defect" not in err
