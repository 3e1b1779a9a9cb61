"""What users of the three programs see, held against files beside this one: help texts, exit codes, reports, HTTP
answers, the metrics page. No file names a module, so rooms can be moved and this proves that nobody notices.

    REWRITE_GOLDEN=1 python -m pytest tests/golden      writes the files anew; read the diff before it is committed

The files in lines/ and http/ say themselves what is run (`$ ppd-acc ...`) and asked (`> GET /mode`, with a body, and a
header behind ` | `): a case is added by its one line and a rewrite.

Not here, because other tests hold it already: names in docs/reference/ against the code (test_docs), exit codes of
every command line that the guide and the manual print (test_acc_lines), docs/ppd-acc.schema.json (test_acc_lines),
docs/accuracy.schema.json (flow/test_shadow), completion in real shells (unit/acc/test_init), the bytes that reach
clients in every shape of request (flow/test_client_bytes, flow/test_shapes), what `serve` and `check` say of mistakes
(unit/cli/test_commands).
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import re
import shlex
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import pair
from tests.support.acc.reports import dataset, write_before_and_after
from tests.support.cluster import running_cluster, running_proxy

from ppd_proxy.config.sections import Auth, Server, Shadow
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine

HERE = Path(__file__).parent
REWRITE = "REWRITE_GOLDEN"
COMMAND = re.compile(r"^    ([a-z][a-z-]*)(?: |$)", re.MULTILINE)
LONG_NUMBER = re.compile(r"-?\d+\.\d{7,}(?:e-?\d+)?")
VOLATILE = (
    (re.compile(r'"(created|created_at|age_s|total_ms)":[\d.]+'), r'"\1":TIME'),
    (re.compile(r'"(at|saved_at)": [\d.]+'), r'"\1": TIME'),
    (re.compile(r"│ \d{4}-\d\d-\d\d \d\d:\d\d │"), "│ DATE AND TIME    │"),
    (re.compile(r'\btime="[\d.]+"'), 'time="TIME"'),
    (re.compile(r'"(chatcmpl|cmpl)-\w+"'), r'"\1-ID"'),
)
BY_ADDRESS = (  # lists in the order of ports, which are chance
    (re.compile(r"\b[A-Z]{5,}(?:, [A-Z]{5,})+"), ", "),
    (re.compile(r'(?<="engines":\[\{)[^\]]*(?=\}\])'), "},{"),
)
UNTOLD_HEADERS = ("date", "content-length", "transfer-encoding", "x-request-id")


def cases(name: str, mark: str) -> list[str]:
    """What a golden file says is to be done."""
    text = (HERE / name).read_text(encoding="utf-8")
    found = [line.removeprefix(mark).strip() for line in text.splitlines() if f"{line} ".startswith(f"{mark} ")]
    assert found, f"{name} has no case"
    return found


def hold(name: str, text: str, folder: Path = HERE) -> None:
    """Fails with a diff where the file says something else; writes it where that was asked for. Of long numbers six
    digits count: the last ones are the processor's."""
    path = folder / name
    text = LONG_NUMBER.sub(lambda match: f"{float(match[0]):.6g}", text)
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get(REWRITE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    wanted = path.read_text(encoding="utf-8") if path.exists() else ""
    if text != wanted:
        diff = difflib.unified_diff(wanted.splitlines(), text.splitlines(), f"{name}, kept", "now", lineterm="")
        pytest.fail("\n".join([*diff, f"{REWRITE}=1 keeps what is now"]), pytrace=False)


# Command lines


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory with the files that the lines name, in an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith(("PPD_", "XPYD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "10000")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "work"
    shutil.copytree(HERE.parent / "data" / "acc", folder)
    shutil.copytree(HERE / "inputs", folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


def installed(program):
    [entry] = entry_points(group="console_scripts", name=program)
    return entry.load()


def run(capsys, program, line):
    """The exit code, standard output and standard error."""
    code = installed(program)(shlex.split(line))
    return code, *capsys.readouterr()


def help_of(capsys, program, command=""):
    """Without a break within an option's text, and as Python 3.11 writes it: newer ones give `-o, --output FILE`."""
    code, out, _ = run(capsys, program, f"{command} --help")
    assert code == 0
    text = re.sub(r"\n {20,}", "  ", out)
    text = re.sub(r"(?m)^(  -\w) (\S+|'.*?'), (--[\w-]+ \2)", r"\1, \3", text)
    return re.sub(r"(?<=\S) {2,}", "  ", text)


def helps(capsys, program):
    """Every command's help, in the order in which the program lists them."""
    told = []
    waiting = [""]
    while waiting:
        command = waiting.pop(0)
        text = help_of(capsys, program, command)
        told.append(f"$ {program} {command}".rstrip() + f" --help\n{text}\n")
        if "COMMAND ..." in text or not command:
            found = [f"{command} {name}".strip() for name in COMMAND.findall(text)]
            waiting[:0] = found
    return "".join(told)


@pytest.mark.parametrize("program", ["ppd-proxy", "ppd-acc"])
def test_help_of_every_command(program, work, capsys):
    hold(f"help/{program}.txt", helps(capsys, program))


def test_xpyd_acc_is_ppd_acc():
    assert installed("xpyd-acc") is installed("ppd-acc")


def told(capsys, program, name):
    """What a file's lines print, and what they write with --json where they take it."""
    parts = []
    for line in cases(name, f"$ {program}"):
        given = f"{line} --json told.json" if program == "ppd-acc" and len(line.split()) > 1 else line
        code, out, err = run(capsys, program, given)
        parts.append(f"$ {program} {line}\n{out}{err}")
        if (document := Path("told.json")).exists():
            fields = json.loads(document.read_text(encoding="utf-8"))
            parts += [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()]
            document.unlink()
        parts.append(f"[exit {code}]\n\n")
    return masked("".join(parts), {})


def test_lines_of_ppd_proxy(work, capsys):
    hold("lines/ppd-proxy.txt", told(capsys, "ppd-proxy", "lines/ppd-proxy.txt"))


def test_lines_of_ppd_acc(work, capsys):
    """Those that need no engine: exit codes, what people read, and the JSON."""
    write_before_and_after(work)
    plane = np.random.default_rng(1).standard_normal((2, 48, 8), dtype=np.float32)
    for name, moved in (("baseline", 0), ("damaged", 16)):
        layers = {f"layer_{layer}_key": np.roll(plane * (layer + 1), moved, axis=1) for layer in range(2)}
        np.savez(work / f"{name}_kv.npz", allow_pickle=False, **layers)
    hold("lines/ppd-acc.txt", told(capsys, "ppd-acc", "lines/ppd-acc.txt"))
    hold("reports/page.html", (work / "report.html").read_text(encoding="utf-8").replace("><", ">\n<"))
    hold("reports/kept.json", (work / "kept.json").read_text(encoding="utf-8").replace("},{", "},\n{"))


def test_a_completion_script(work, capsys):
    hold("help/completion.bash", run(capsys, "ppd-acc", "completion bash")[1])


async def test_a_batch_in_every_format(work):
    """What one comparison with engines writes; q1 differs, q2 by no more than noise."""
    files = {"output": "json", "csv": "csv", "junit": "xml", "markdown": "md", "prometheus": "prom"}
    flags = [part for flag, kind in files.items() for part in (f"--{flag}", f"results.{kind}")]
    async with pair({"q1": 3.0, "q2": 0.001}) as (baseline, target):
        result = await run_command(
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(work, 4),
            "--noise-floor", "2", *flags, at=work,
        )  # fmt: skip
    assert result.exit == 1
    known = {baseline: "http://BASELINE", target: "http://TARGET", str(work): "WORK"}
    for kind in files.values():
        text = masked((work / f"results.{kind}").read_text(encoding="utf-8"), known)
        hold(f"reports/results.{kind}", without_times(text) if kind == "csv" else text)


def without_times(table):
    rows = list(csv.DictReader(io.StringIO(table)))
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows({**row, "baseline_ms": "MS", "target_ms": "MS"} for row in rows)
    return out.getvalue()


# HTTP


def names_of(cluster):
    """What each address is called here."""
    groups = {"PREFILL": cluster.prefills, "DECODE": cluster.decodes, "WHOLE": cluster.aggregated}
    named = {engine.http_address: name for name, group in groups.items() for engine in group}
    return {**named, cluster.url.removeprefix("http://"): "PROXY"}


def masked(text, names):
    for address, name in names.items():
        text = text.replace(address, name)
    for pattern, instead in VOLATILE:
        text = pattern.sub(instead, text)
    for pattern, between in BY_ADDRESS:
        text = pattern.sub(lambda match, between=between: between.join(sorted(match[0].split(between))), text)
    return text


async def asked(cluster, name, names):
    """A file's requests, each with its answer."""
    parts = []
    for request in cases(name, ">"):
        line, _, header = request.partition(" | ")
        method, path, body = [*line.split(" ", 2), ""][:3]
        for address, engine in names.items():
            path, body = path.replace(engine, address), body.replace(engine, address)
        headers = dict([header.split(": ")]) if header else {}
        reply = await cluster.ask(path, body.encode() if body else None, method=method, headers=headers)
        heads = [f"{key}: {reply.headers[key]}\n" for key in sorted(reply.headers) if key not in UNTOLD_HEADERS]
        parts.append(f"> {request}\n{reply.status}\n{''.join(heads)}{reply.body.decode().rstrip()}\n\n")
    return masked("".join(parts), names)


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("admin", {}),
        ("info", {}),
        ("generation", {}),
        ("refused", {"server": Server(max_body_bytes=300, max_json_depth=5)}),
        ("keys", {"auth": Auth(api_key=("client",), admin_key="admin", register_key="register")}),
    ],
)
async def test_answers(name, sections):
    async with running_cluster(aggregated=1, **sections) as cluster:
        hold(f"http/{name}.txt", await asked(cluster, f"http/{name}.txt", names_of(cluster)))


async def test_answers_where_there_is_no_engine():
    async with running_proxy() as cluster:
        hold("http/unserved.txt", await asked(cluster, "http/unserved.txt", names_of(cluster)))


def without_values(page):
    """HELP and TYPE lines of a metrics page, and every sample's labels; a histogram's bounds are one line."""
    families, bounds = [], {}
    for line in page.splitlines():
        if line.startswith("# HELP"):
            families.append([])
        sample = line if line.startswith("#") else line.rpartition(" ")[0]
        if found := re.search(r'\ble="([^"]*)",?', sample):
            sample = sample.replace(found[0], "")
            bounds.setdefault(sample, []).append(found[1])
        if sample not in families[-1]:
            families[-1].append(sample)
    for head, kind, *samples in families:
        yield from (head, kind, *(" ".join([each, *bounds.get(each, ())]) for each in sorted(samples)))


async def test_answers_and_metrics_with_a_baseline():
    """The page has every route's request on it, and the accuracy check's names."""
    async with running_engine(EngineConfig(role="aggregated")) as baseline:
        shadow = Shadow(baseline=(baseline.url,), shadow_rate=0.0, guard="off")
        async with running_cluster(shadow=shadow) as cluster:
            names = names_of(cluster) | {baseline.http_address: "BASELINE"}
            fresh = (await cluster.ask("/metrics")).body.decode()
            hold("metrics/fresh.txt", "\n".join(without_values(masked(fresh, names))))
            hold("http/accuracy.txt", await asked(cluster, "http/accuracy.txt", names))
            await asked(cluster, "http/generation.txt", names)
            used = (await cluster.ask("/metrics")).body.decode()
            hold("metrics/used.txt", "\n".join(without_values(masked(used, names))))


# What this module does itself


def test_a_difference_is_shown_line_by_line(tmp_path, monkeypatch):
    monkeypatch.delenv(REWRITE, raising=False)
    (tmp_path / "kept.txt").write_text("one\ntwo\n")
    hold("kept.txt", "one\ntwo  ", tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"(?s)-two\n\+three.*REWRITE_GOLDEN=1") as failed:
        hold("kept.txt", "one\nthree", tmp_path)
    assert " one" in str(failed.value)
    with pytest.raises(pytest.fail.Exception, match=r"\+new"):
        hold("missing.txt", "new", tmp_path)
    monkeypatch.setenv(REWRITE, "1")
    hold("kept.txt", "one\nthree", tmp_path)
    assert (tmp_path / "kept.txt").read_text() == "one\nthree\n"
