"""Every command line that the guide and our manual print is run, literally, and ends as it says it does.

Two equal simulated engines answer for the two hosts, a split cluster with accuracy shadowing for the proxy; only host
names are replaced. The files that lines read are in data/acc, made here, or by the lines before them.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tests.support.acc.reports import write_before_and_after

import acc_schema
from ppd_acc.cli.main import main

TESTS = Path(__file__).parent
GUIDE = TESTS / "acc_guide.txt"
MANUAL = TESTS.parent / "docs" / "ppd-acc.md"
FILES = TESTS / "data" / "acc"
SCHEMA = jsonschema.Draft202012Validator(acc_schema.schema())
LINE = re.compile(r"^(?:ppd-acc|xpyd-acc) .*?  # exit (?P<code>[0-4])$")


def lines_of(text: str) -> list[str]:
    """The command lines, continuations joined."""
    joined = text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if re.match(r"\s*(ppd-acc|xpyd-acc) ", line)]


def unmarked(lines: list[str]) -> Iterator[str]:
    yield from (line for line in lines if not LINE.match(line))


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, str]]:
    """Where the hosts of the documents are."""
    command = [sys.executable, "-m", "tests.support.acc.stack"]
    stack = subprocess.Popen(command, cwd=TESTS.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield json.loads(stack.stdout.readline())
    finally:
        stack.terminate()
        stack.wait()
        stack.stdout.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """The documents' working directory."""
    path = tmp_path_factory.mktemp("work")
    shutil.copytree(FILES, path, dirs_exist_ok=True)
    write_before_and_after(path)
    (path / "timings.json").write_text(
        '{"kv_load": 0.02, "selection": 0.01, "partial_recompute": 0.1, "generation": 0.05}'
    )
    write_dumps(path)
    return path


def write_dumps(path: Path) -> None:
    """A dump, its equal, one with a block that was moved, one rounded to bf16."""
    chance = np.random.default_rng(1)
    planes = {
        f"layer_{layer}_{kind}": chance.standard_normal((2, 48, 8), dtype=np.float32)
        for layer in range(3)
        for kind in ("key", "value")
    }
    damaged = {name: np.roll(plane, 16, axis=1) for name, plane in planes.items()}
    rounded = {
        name: ((plane.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
        for name, plane in planes.items()
    }
    for name, arrays in (("baseline", planes), ("transfer", planes), ("damaged", damaged), ("rounded", rounded)):
        np.savez(path / f"{name}_kv.npz", allow_pickle=False, **arrays)


def run(line, hosts, directory, monkeypatch, capsys):
    """The exit code of one printed line, and everything it says."""
    monkeypatch.chdir(directory)
    text = line.partition("  # exit ")[0]
    for host, url in hosts.items():
        text = text.replace(host, url)
    arguments = shlex.split(text)[1:]
    if "--json" not in arguments:
        arguments += ["--json", "told.json"]
    code = main(arguments)
    out, err = capsys.readouterr()
    told = directory / "told.json"
    if told.is_file():
        breaches = [error.message for error in SCHEMA.iter_errors(json.loads(told.read_text(encoding="utf-8")))]
        told.unlink()
        err += "".join(f"Traceback or schema: the JSON breaks the schema: {breach[:200]}" for breach in breaches)
    return code, out + err


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", [GUIDE, MANUAL], ids=["guide", "manual"])
def test_every_printed_line_ends_as_it_says(document, hosts, directory, monkeypatch, capsys):
    lines = lines_of(document.read_text(encoding="utf-8"))
    assert lines
    assert not list(unmarked(lines))
    reports = 0
    wrong = []
    for line in lines:
        code, said = run(line, hosts, directory, monkeypatch, capsys)
        if code != int(LINE.match(line)["code"]) or "Traceback" in said:
            wrong.append(f"{line}\n    ended with {code}: {said[-400:]}")
    assert not wrong, "\n".join(wrong)
    for name in ("results.json", "equal.json", "live.json", "snapshot.json"):
        if (directory / name).is_file():
            SCHEMA.validate(json.loads((directory / name).read_text(encoding="utf-8")))
            reports += 1
    assert reports


def test_a_line_without_an_exit_code_is_noticed():
    assert list(unmarked(lines_of("```sh\nppd-acc summary results.json\n```")))


def test_the_schema_in_the_documents_is_that_of_the_code():
    assert acc_schema.SCHEMA.read_text(encoding="utf-8") == acc_schema.text()
