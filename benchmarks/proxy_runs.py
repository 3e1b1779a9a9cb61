"""Proxies and engines as processes of their own, and what the kernel says of them. Linux only."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from chat_client import RequestFailed
from processes import free_port

HERE: Final = Path(__file__).resolve().parent
START_S: Final = 60.0
STOP_S: Final = 10.0
POLL_S: Final = 0.1
QUESTION: Final = {"model": "instant", "max_tokens": 1, "messages": [{"role": "user", "content": "ready?"}]}
OWN_LIBRARIES: Final = "PYTHONPATH"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to measure: its name, its command with placeholders, and files that it wants to find in {folder}.

    Placeholders are {port}, {free_port}, {folder} and the names of engines ({prefill}, {decode}, {baseline}: URLs;
    with _address: host:port). `libraries` is its PYTHONPATH; the benchmark's own is for nobody else.
    """

    name: str
    command: str
    libraries: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def environment(libraries: str) -> dict[str, str]:
    """Of a process to measure."""
    kept = {name: value for name, value in os.environ.items() if name != OWN_LIBRARIES}
    return {**kept, OWN_LIBRARIES: libraries} if libraries else kept


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session, and what is left of its group."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """A process that says `listening on ADDRESS` first; its id and the address. RequestFailed where it does not."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RequestFailed(f"did not start: {' '.join(command)}")
        yield process.pid, line.split()[-1]
    finally:
        stop(process)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def instant_engine(role: str, chunks: int) -> Iterator[str]:
    """A running engine; its URL."""
    own = [sys.executable, str(HERE / "instant_engine.py"), "--role", role, "--chunks", str(chunks)]
    with serving(own) as (_, url):
        yield url


@contextmanager
def running_proxy(proxy: Proxy, engines: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The proxy as a session of its own, once it answers a chat; its process id and URL."""
    taken: set[int] = set()
    port = free_port(taken)
    with tempfile.TemporaryDirectory() as folder:
        values = {"port": str(port), "free_port": str(free_port(taken)), "folder": folder, **engines}
        values |= {f"{name}_address": url.removeprefix("http://") for name, url in engines.items()}
        for name, text in proxy.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(filled(text, values), encoding="utf-8")
        command = filled(proxy.command, values)
        with Path(folder, "errors").open("w+", encoding="utf-8", errors="replace") as errors:
            process = subprocess.Popen(
                shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, text=True,
                start_new_session=True, env=environment(proxy.libraries),
            )  # fmt: skip
            try:
                wait_until_ready(process, f"http://127.0.0.1:{port}", Path(errors.name), command)
                yield process.pid, f"http://127.0.0.1:{port}"
            finally:
                stop(process)


def filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def wait_until_ready(process: subprocess.Popen[str], url: str, errors: Path, command: str) -> None:
    """Return once a chat is answered 200; RequestFailed with the last reason when that takes too long."""
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(QUESTION).encode())
    request.add_header("content-type", "application/json")
    ends_at = time.monotonic() + START_S
    reason = "no answer"
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            last = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RequestFailed(f"ended with status {process.returncode} ({' '.join(last)}): {command}")
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            reason = str(error)
        time.sleep(POLL_S)
    raise RequestFailed(f"answered no chat within {START_S:.0f} s ({reason}): {command}")


def counts(engine_url: str) -> dict[str, int]:
    """How many requests each path of an engine got."""
    with urllib.request.urlopen(f"{engine_url}/counts", timeout=10) as answer:
        told: dict[str, int] = json.load(answer)
    return told


def _stat(text: str) -> list[str]:
    """The fields of /proc/PID/stat from the third on. The second, a name in parentheses, may hold spaces."""
    return text[text.rindex(")") + 2 :].split()


def processes_of(session: int) -> list[int]:
    """Every process of a session."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                fields = _stat((directory / "stat").read_text())
            except OSError:
                continue
            if int(fields[3]) == session:
                found.append(int(directory.name))
    return found


def cpu_seconds(session: int) -> float:
    """User and system time so far of every process of a session."""
    ticks = 0
    for pid in processes_of(session):
        try:
            fields = _stat(Path(f"/proc/{pid}/stat").read_text())
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_kb(pid: int) -> int:
    """Resident memory of one process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def raise_descriptor_limit() -> str:
    """Raise this process's limit, and so that of all it starts, as far as the kernel lets it; in words how far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return f"{most:,} descriptors a process (raised from {soft:,}, the hard limit from {hard:,})"
    except (ValueError, OSError) as error:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return f"{hard:,} descriptors a process (raised from {soft:,}; more is refused: {error})"


def busy_and_idle_s() -> tuple[float, float]:
    """Seconds that all cores together have worked and waited since the machine started."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    per_s = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / per_s, idle / per_s


def descriptors(pid: int) -> int:
    """Open descriptors of one process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def ask(url: str, path: str) -> Any:  # noqa: ANN401 - JSON
    """A proxy's answer to GET."""
    with urllib.request.urlopen(url + path, timeout=30) as answer:
        return json.load(answer)
