"""Every command line that the guide and our manual print is run, literally, and ends as it says it does.

Two equal simulated engines answer for the two hosts; only host names are replaced. The files that lines read are made
here or by the lines before them.
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

import acc_schema
from ppd_proxy.acc.main import main

TESTS = Path(__file__).parent
GUIDE = TESTS / "acc_guide.txt"
MANUAL = TESTS.parent / "docs" / "ppd-acc.md"
FILES = TESTS / "data" / "acc"
LINE = re.compile(r"^(?:ppd-acc|xpyd-acc) .*?  # exit (?P<code>[0-4])$")
NOISE = "[model]\nprefill_noise_nats = 0.02\n"


def lines_of(text: str) -> list[str]:
    """The command lines, continuations joined."""
    joined = text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if re.match(r"\s*(ppd-acc|xpyd-acc) ", line)]


def unmarked(lines: list[str]) -> Iterator[str]:
    yield from (line for line in lines if not LINE.match(line))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Where the two hosts of the documents are."""
    config = tmp_path_factory.mktemp("engines") / "engine.toml"
    config.write_text(NOISE)
    command = [sys.executable, "-m", "ppd_proxy.cli.main", "simulate", "--role", "aggregated", "--port", "0"]
    engines = [
        subprocess.Popen([*command, "--config", str(config)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        urls = [engine.stdout.readline().removeprefix("listening on ").strip() for engine in engines]
        yield dict(zip(("http://aggregated:8000", "http://pd-endpoint:8001"), urls, strict=True))
    finally:
        for engine in engines:
            engine.terminate()
            engine.wait()
            engine.stdout.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """The documents' working directory."""
    path = tmp_path_factory.mktemp("work")
    if FILES.is_dir():
        shutil.copytree(FILES, path, dirs_exist_ok=True)
    prompts = "".join(f'{{"id": "p{number}", "prompt": "Tell me about the number {number}"}}\n' for number in range(12))
    (path / "prompts.jsonl").write_text(prompts)
    chance = np.random.default_rng(1)
    planes = {
        f"layer_{layer}_{kind}": chance.standard_normal((2, 48, 8), dtype=np.float32)
        for layer in range(3)
        for kind in ("key", "value")
    }
    for name in ("baseline_kv.npz", "transfer_kv.npz"):
        np.savez(path / name, allow_pickle=False, **planes)
    return path


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
        jsonschema.validate(json.loads(told.read_text(encoding="utf-8")), acc_schema.schema())
        told.unlink()
    return code, out + err


@pytest.mark.parametrize("document", [GUIDE, MANUAL], ids=["guide", "manual"])
def test_every_printed_line_ends_as_it_says(document, hosts, directory, monkeypatch, capsys):
    lines = lines_of(document.read_text(encoding="utf-8"))
    assert lines
    assert not list(unmarked(lines))
    wrong = []
    for line in lines:
        code, said = run(line, hosts, directory, monkeypatch, capsys)
        if code != int(LINE.match(line)["code"]) or "Traceback" in said:
            wrong.append(f"{line}\n    ended with {code}: {said[-400:]}")
    assert not wrong, "\n".join(wrong)


def test_a_line_without_an_exit_code_is_noticed():
    assert list(unmarked(lines_of("```sh\nppd-acc summary results.json\n```")))


def test_the_schema_in_the_documents_is_that_of_the_code():
    assert json.loads(acc_schema.SCHEMA.read_text(encoding="utf-8")) == acc_schema.schema()
