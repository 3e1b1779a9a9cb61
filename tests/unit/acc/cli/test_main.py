"""What is the same for every command of ppd-acc: options anywhere, JSON, exit codes, never a traceback."""

import io
import json
import math
import os
import subprocess
import sys

import pytest

from ppd_acc.cli import main as program
from ppd_acc.cli.command import Command
from ppd_acc.cli.registry import COMMANDS, Listed
from ppd_acc.outcome import Exit, Mistake, Result, Trouble

TEXTS = ("compare-output", "--baseline-text", "a b", "--target-text", "a c")


def run(capsys, *arguments, commands=COMMANDS):
    code = program.main(arguments, commands)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def add_nothing(parser):
    pass


def only(run_it):
    """A command `try`."""
    command = Command(name="try", add_arguments=add_nothing, options=lambda given: None, run=run_it)
    return (Listed(name="try", summary="For tests.", load=lambda: command),)


@pytest.mark.parametrize("place", range(4))
def test_options_of_every_command_stand_anywhere(capsys, place):
    line = [TEXTS[0], "--baseline-text=a b", "--target-text=a c"]
    line[place:place] = ["--json", "-"]
    code, out, _ = run(capsys, *line)
    assert code == Exit.DIFFERENT
    assert json.loads(out)["sample"]["status"] == "unclassified"


def test_json_says_kind_version_exit_and_outcome(capsys, tmp_path):
    path = tmp_path / "told.json"
    code, out, _ = run(capsys, *TEXTS, "--json", str(path))
    told = json.loads(path.read_text())
    assert (told["kind"], told["version"], told["exit"], told["outcome"]) == ("compare-output", 1, 1, "different")
    assert code == 1
    assert "word 1 is the first that differs" in out


def test_quiet_says_nothing_but_the_exit_code(capsys):
    assert run(capsys, "-q", *TEXTS)[:2] == (1, "")


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("no-such-command",),
        (*TEXTS, "--no-such-flag"),
        ("compare-output", "--max-tokens", "0"),
        ("compare-output", "--temperature", "nan"),
        ("compare-output", "--prompt", "x", "--profile", "warm", "--baseline", "http://a", "--target", "http://b"),
        (*TEXTS, "--config", "missing.toml"),
    ],
)
def test_a_mistake_in_usage_ends_with_two(capsys, line):
    code, out, err = run(capsys, *line)
    assert (code, out) == (2, "")
    assert err.startswith("ppd-acc")


@pytest.mark.parametrize(("line", "told"), [
    (("batch-compar",), "no command 'batch-compar'; did you mean batch-compare?; see ppd-acc --help"),
    (("compare",), "did you mean compare-output or compare-logprobs or compare-streaming?; see ppd-acc --help"),
    (("xyzzy",), "no command 'xyzzy'; see ppd-acc --help"),
    (("history", "lst"), "no command 'lst'; did you mean list?; see ppd-acc history --help"),
    (("history", "xyzzy"), "no command 'xyzzy'; there are save, list, trend, purge; see"),
])  # fmt: skip
def test_an_unknown_command_is_told_what_it_may_have_been(capsys, line, told):
    code, _, err = run(capsys, *line)
    assert (code, told in err, "choose from" in err) == (Exit.USAGE, True, False), err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Mistake("field: wrong"), 2),
        (Trouble("engine down"), 3),
        (KeyboardInterrupt(), 3),
        (RuntimeError("a defect"), 3),
    ],
)
def test_what_a_command_raises_becomes_a_code_and_a_line(capsys, error, code):
    def fail(args, context):
        raise error

    told, out, _ = run(capsys, "try", "--json", "-", commands=only(fail))
    assert told == code
    assert json.loads(out)["message"]


def test_what_is_no_number_is_null_in_json(capsys):
    commands = only(lambda args, context: Result(exit=Exit.PASS, data={"x": [math.nan, math.inf, 1.5]}))
    assert json.loads(run(capsys, "try", "--json", "-", commands=commands)[1])["x"] == [None, None, 1.5]


@pytest.mark.parametrize(("name", "why"), [("missing/told.json", "there is no directory"), (".", "is a directory")])
def test_a_json_file_that_cannot_be_written_ends_with_two_before_any_work(capsys, tmp_path, name, why):
    def work(args, context):
        raise AssertionError("worked")

    code, out, err = run(capsys, "try", "--json", str(tmp_path / name), commands=only(work))
    assert (code, out, why in err) == (Exit.USAGE, "", True)


def test_a_json_file_whose_directory_is_gone_afterwards_ends_with_three(capsys, tmp_path):
    def work(args, context):
        (tmp_path / "kept").rmdir()
        return Result(exit=Exit.PASS, data={})

    (tmp_path / "kept").mkdir()
    code, _, err = run(capsys, "try", "--json", str(tmp_path / "kept" / "told.json"), commands=only(work))
    assert (code, "told.json" in err) == (Exit.INFRASTRUCTURE, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ImportError("no module")])
def test_a_command_that_cannot_be_loaded_ends_with_three(capsys, error):
    def load():
        raise error

    assert run(capsys, "try", commands=(Listed(name="try", summary="For tests.", load=load),))[0] == 3


def test_a_view_that_cannot_be_shown_is_told_in_one_line(capsys):
    class Broken:
        def __rich__(self):
            raise RuntimeError("no view")

    commands = only(lambda args, context: Result(exit=Exit.PASS, data={}, view=(Broken(),)))
    code, _, err = run(capsys, "try", commands=commands)
    assert (code, "no view" in err) == (Exit.INFRASTRUCTURE, True)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("text", ["\u00e9", "\U0001f600", "\udce9"])
def test_any_text_can_be_printed_and_is_valid_json(encoding, text, tmp_path, monkeypatch):
    line = ["compare-output", "--baseline-text", text, "--target-text", "b"]
    for more in ([], ["--json", "-"], ["--json", str(tmp_path / "told.json")]):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert program.main([*line, *more]) == Exit.DIFFERENT
        for stream in (out, err):
            stream.flush()
        assert err.buffer.getvalue() == b""
        if more == ["--json", "-"]:
            assert json.loads(out.buffer.getvalue())["sample"]["baseline"]["text"] == text
    told = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert told["sample"]["baseline"]["text"] == text


def test_a_mistake_names_an_argument_that_cannot_be_printed():
    line = [sys.executable, "-m", "ppd_acc.cli.main", "\udce9"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"}
    done = subprocess.run(line, capture_output=True, env=environment, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (Exit.USAGE, False)


def test_every_command_has_help(capsys):
    for listed in COMMANDS:
        assert run(capsys, *listed.name.split(), "--help")[0] == 0
        assert listed.load().name == listed.name


def test_a_command_without_numbers_imports_neither_its_neighbours_nor_scipy():
    code = """
import sys
from ppd_acc.cli.main import main
assert main(["profiles", "-q"]) == 0
assert main(["--help"]) == 0
print(sorted(set(sys.modules) & {"scipy", "numpy", "aiohttp", "ppd_acc.cli.experiments.diagnose"}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Find the stage" in done.stdout


@pytest.mark.parametrize("place", [1, 3])
def test_json_without_a_file_is_standard_output(capsys, place):
    line = [TEXTS[0], "--baseline-text=a b", "--target-text=a c"]
    line[place:place] = ["--json"]
    code, out, _ = run(capsys, *line)
    assert (code, json.loads(out)["kind"]) == (Exit.DIFFERENT, "compare-output")


def test_a_url_is_no_json_file(capsys):
    code, _, err = run(capsys, "healthcheck", "http://a:1", "--json", "http://b:1")
    assert (code, "write --json - before a URL" in err) == (Exit.USAGE, True)


def ended_without_reader(*line):
    """How the program ends whose standard output nobody reads, and what it says of it."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ppd_acc.cli.main", *line]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("target", "code"), [("a b", Exit.PASS), ("a c", Exit.DIFFERENT)])
def test_a_reader_that_has_seen_enough_changes_no_verdict(target, code):
    line = ("compare-output", "--baseline-text", "a b", "--target-text", target)
    assert ended_without_reader(*line) == (code, "")


def test_json_that_nobody_reads_is_trouble():
    line = ("compare-output", "--baseline-text", "a", "--target-text", "a", "--json", "-")
    assert ended_without_reader(*line)[0] == Exit.INFRASTRUCTURE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told_of_the_output_that_it_hit():
    line = [sys.executable, "-m", "ppd_acc.cli.main", "profiles"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == Exit.INFRASTRUCTURE
    assert "standard output: No space left" in done.stderr
    assert "--json" not in done.stderr
