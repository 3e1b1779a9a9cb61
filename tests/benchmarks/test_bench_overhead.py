"""overhead.py and what it starts, small."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import proxies
from first_token import chat_bodies, first_tokens_ms
from machine import describe, sentence
from proxy_runs import environment, instant_engine

pytestmark = pytest.mark.timeout(240)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")

SHORT = ["--rounds", 1, "--seconds", 1, "--single-seconds", 1, "--warmup-seconds", 0, "--connections", 8, "--chunks", 8]
SHORT += ["--first-token-chats", 2]


def last_line(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_overhead_without_wrk_says_what_is_missing(run_script):
    done = run_script("benchmarks/overhead.py", env={"PATH": str(Path(sys.executable).parent)})
    assert done.returncode == 2
    assert "wrk is not installed" in done.stderr


@needs_wrk
def test_each_proxy_is_measured_in_turn(run_script):
    command = f"{sys.executable} -m ppd_proxy.cli.main serve --host 127.0.0.1 --port {{port}} --discovery-port 0 "
    command += "--drain-s 0 --log-level error --prefill {prefill} --decode {decode} --mode "
    measured = last_line(
        run_script("benchmarks/overhead.py", "--proxy", f"a={command}ppd", "--proxy", f"b={command}pd", *SHORT)
    )["proxies"]
    assert measured["a"]["json"]["ratio"] == 1.0
    assert measured["a"]["json"]["prefill_share"] < 0.6 < measured["b"]["json"]["prefill_share"]
    assert all(kinds[kind]["failed"] == 0 for kinds in measured.values() for kind in ("json", "sse"))
    assert all(kinds["first_token"]["proxy_ms"] > 0 for kinds in measured.values())


@needs_wrk
def test_ours_is_measured_in_its_modes_and_what_is_not_measured_is_named(run_script, tmp_path):
    done = run_script(
        "benchmarks/overhead.py", *SHORT, "--peer", "smg=/bin/false", "--output", tmp_path / "raw.json",
        "--plot", tmp_path / "figure.png",
        env={"PATH": f"{Path(shutil.which('wrk')).parent}", "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert "ended with status 1" in told["not_measured"]["smg"]
    assert set(proxies.OURS) <= set(told["proxies"])
    assert set(told["not_measured"]) | set(told["proxies"]) == {*proxies.OURS, *proxies.PEERS}
    assert all(f"Not measured: {name}" in done.stdout for name in told["not_measured"])
    assert "Linux" in done.stdout
    assert str(Path.cwd()) not in json.dumps(told["machine"])
    assert len(json.loads((tmp_path / "raw.json").read_text())["rounds"]["ppd"]["first_tokens"]) == 1
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_peers_are_looked_for_by_their_program_and_told_apart_from_those_not_there():
    found, absent = proxies.peers({"smg": "/somewhere/smg"}, {"/somewhere/smg": "/somewhere/smg", "xpyd": "/x"}.get)
    assert [(proxy.name, proxy.command.split()[0]) for proxy in found] == [
        ("smg", "/somewhere/smg"), ("xpyd-proxy", "/x"),
    ]  # fmt: skip
    assert absent == {"vllm-router": "no program vllm-router (--peer vllm-router=PROGRAM)"}
    assert proxies.peers({"smg": "lost"}, {}.get)[1]["smg"] == "no program lost"


def test_the_machine_is_described_without_a_path():
    told = describe(sys.executable, environment(""))
    python = told["interpreter"]
    assert python["version"] == sys.version.split()[0]
    assert 0 <= python["compiled_modules"] <= python["modules"]
    assert f"{python['compiled_modules']} of {python['modules']} modules compiled" in sentence(told)
    assert sys.prefix not in json.dumps(told)


def test_a_chat_grows_by_a_turn_and_first_tokens_are_timed_once_per_turn():
    bodies = [json.loads(body) for body in chat_bodies("c", 3, is_stream=True)]
    assert [len(body["messages"]) for body in bodies] == [2, 4, 6]
    with instant_engine("decode", 4) as url:
        times = first_tokens_ms({"engine": url.removeprefix("http://")}, 2, 3)
    assert len(times["engine"]) == 6
    assert min(times["engine"]) > 0
