"""ppd-acc on a real split vLLM: the guide's lines as they are printed, and faults of the connector that it must find.

Most run in float32 on short prompts, where vLLM on a CPU repeats itself bit for bit and the noise floor is 0. Long
prompts in bfloat16 have a floor to be held against.
"""

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.test_acc_lines import FILES, GUIDE, LINE, lines_of
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import call
from tests.vllm.kv_calls import prompt_of, wait_until

from cluster import Cluster, ClusterSpec, EngineSpec
from ppd_acc.cli.main import main

BLOCK_TOKENS = 32
PASS, DIFFERENT = 0, 1
SPLIT_ENGINES = "prefill, transfer or decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a command ended and what it said: `data` is what it wrote for machines."""

    code: int
    text: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The cluster, the file that switches the decode engine's faults, and where both split engines dump to."""

    cluster: Cluster
    fault_file: Path
    dumps: Path
    run: Callable[[str], Told]

    @property
    def pair(self) -> str:
        return f"--baseline {self.cluster.engine('aggregated').url} --target {self.cluster.proxy_url}"

    @property
    def nodes(self) -> str:
        engines = ((node, self.cluster.engine(node).url) for node in ("prefill", "decode"))
        return " ".join(f"--{node}-node {url}" for node, url in engines)

    @contextmanager
    def fault(self, text: str) -> Iterator[None]:
        self.fault_file.write_text(text)
        try:
            yield
        finally:
            self.fault_file.write_text("")

    def dump(self, prompt: str) -> tuple[Path, Path]:
        """What left the prefill engine and what the decode engine holds, of one answer through the proxy."""
        known = set(self.dumps.glob("*.npz"))
        body = {"model": self.cluster.model_name, "prompt": prompt, "max_tokens": 4, "temperature": 0}
        assert call(f"{self.cluster.proxy_url}/v1/completions", body).status == 200

        def new(side: str) -> list[Path]:
            return [path for path in self.dumps.glob(f"*_{side}.npz") if path not in known]

        wait_until(lambda: bool(new("prefill") and new("decode")), "both sides' dumps")
        (sent,), (got,) = new("prefill"), new("decode")
        assert sent.name.split("_")[0] == got.name.split("_")[0]
        return sent, got


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("acc")


@pytest.fixture
def bench(
    use_cluster: UseCluster,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Bench:
    """`run` works in an empty folder of its own. Another element type than float32 is a parameter."""
    fault_file, dumps = folder / "fault", folder / "dumps"
    fault_file.touch()
    common: dict[str, Any] = {
        "dtype": getattr(request, "param", "float32"),
        "connector": "ppd",
        "block_tokens": BLOCK_TOKENS,
    }
    engines = (
        EngineSpec(role="prefill", kv_settings={"dump_dir": str(dumps)}, **common),
        EngineSpec(role="decode", kv_settings={"dump_dir": str(dumps), "fault": str(fault_file)}, **common),
        EngineSpec(role="aggregated", is_baseline=True, **common),
    )
    cluster = use_cluster(ClusterSpec(engines=engines, model="tiny-peaked"))
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Told:
        told = tmp_path / "told.json"
        code = main([*shlex.split(line), "--json", str(told)])
        text = "".join(capsys.readouterr())
        print(f"{line}\n{text}exit {code}")  # shown where a test fails
        assert "Traceback" not in text
        assert "a defect of ppd-acc" not in text
        return Told(code=code, text=text, data=json.loads(told.read_text(encoding="utf-8")))

    return Bench(cluster=cluster, fault_file=fault_file, dumps=dumps, run=run)


@pytest.mark.vllm_smoke
def test_every_line_of_the_guide_ends_as_it_says(bench: Bench, tmp_path: Path) -> None:
    shutil.copy(FILES / "prompts.jsonl", tmp_path)
    for path, name in zip(bench.dump(prompt_of(100, 400)), ("baseline_kv.npz", "transfer_kv.npz"), strict=True):
        shutil.copy(path, tmp_path / name)
    hosts = {
        "http://aggregated:8000": bench.cluster.engine("aggregated").url,
        "http://pd-endpoint:8001": bench.cluster.proxy_url,
    }
    wrong = []
    for line in lines_of(GUIDE.read_text(encoding="utf-8")):
        expected = LINE.match(line)
        assert expected is not None
        text = line.partition("  # exit ")[0].partition(" ")[2]
        for host, url in hosts.items():
            text = text.replace(host, url)
        told = bench.run(text)
        if told.code != int(expected["code"]):
            wrong.append(f"{line}\n    ended with {told.code}: {told.text}")
    assert not wrong, "\n".join(wrong)
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["samples"]
    assert [row["status"] for row in rows] == ["equal"] * 12
    assert {row.get("unit", "tokens") for row in rows} == {"tokens"}
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_healthy_cluster_passes_every_stage(bench: Bench) -> None:
    sent, got = bench.dump(prompt_of(100, 401))
    told = bench.run(
        f"diagnose {bench.pair} {bench.nodes} --prompt '{prompt_of(60, 402)}' --kv-baseline {sent} --kv-target {got}"
    )
    states = {stage["stage"]: stage["state"] for stage in told.data["stages"]}
    assert states == dict.fromkeys(("prefill", "pd", "warm", "direct", "decode"), "clean")
    routes = {stage["stage"]: [name.partition(";")[0] for name in stage["routes"]] for stage in told.data["stages"]}
    assert set(routes["pd"]) == {"pd"}
    assert set(routes["direct"]) == {"direct"}, "the second turn stays on the decode engine"
    assert told.data["located"]["place"] is None
    assert told.code == PASS


def test_streams_of_both_engines_are_equal(bench: Bench) -> None:
    told = bench.run(f"compare-streaming {bench.pair} --prompt '{prompt_of(60, 403)}' --timing")
    assert {sample["status"] for sample in told.data["samples"].values()} == {"equal"}
    assert told.code == PASS


@pytest.mark.parametrize(
    ("fault", "kinds", "seed"),
    [("zero_tail", {"zero"}, 410), ("block_shift", {"moved_tokens"}, 411), ("layer_swap", {"moved_layers"}, 412)],
)
def test_check_kv_names_what_happened(bench: Bench, fault: str, kinds: set[str], seed: int) -> None:
    """Each on a prompt of its own: the decode engine's prefix cache keeps what was damaged."""
    with bench.fault(fault):
        sent, got = bench.dump(prompt_of(120, seed))
    told = bench.run(f"check-kv --kv-dump-a {sent} --kv-dump-b {got}")
    assert told.code == DIFFERENT
    assert {finding["kind"] for finding in told.data["findings"]} == kinds


def test_stale_kv_is_named_so(bench: Bench) -> None:
    with bench.fault("stale"):
        bench.dump(prompt_of(120, 420))
        sent, got = bench.dump(prompt_of(120, 421))
    told = bench.run(f"check-kv --kv-dump-a {sent} --kv-dump-b {got}")
    assert told.code == DIFFERENT
    assert {finding["kind"] for finding in told.data["findings"]} == {"stale"}


@pytest.mark.parametrize("fault", ["zero_tail", "stale"])
def test_answers_on_damaged_kv_are_real_differences(bench: Bench, fault: str, tmp_path: Path) -> None:
    rows = [{"id": str(number), "prompt": prompt_of(60, 500 + number)} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with bench.fault(fault):
        told = bench.run(f"batch-compare {bench.pair} --dataset rows.jsonl --noise-floor 8 --max-tokens 32")
    assert told.code == DIFFERENT
    assert told.data["totals"]["real"] >= 3
    assert told.data["totals"]["error"] == 0


@pytest.mark.parametrize("fault", ["zero_tail", "stale"])
def test_diagnose_finds_the_transfer_between_two_healthy_engines(bench: Bench, fault: str) -> None:
    with bench.fault(fault):
        told = bench.run(f"diagnose {bench.pair} {bench.nodes} --prompt '{prompt_of(60, 431)}'")
    states = {stage["stage"]: stage["state"] for stage in told.data["stages"]}
    assert (states["prefill"], states["pd"], states["decode"]) == ("clean", "broken", "clean")
    assert told.data["located"]["place"] == "transfer"
    assert told.code == DIFFERENT


def test_diagnose_with_dumps_clears_the_decode_stage(bench: Bench) -> None:
    with bench.fault("zero_tail"):
        sent, got = bench.dump(prompt_of(100, 440))
        dumps = f"--kv-baseline {sent} --kv-target {got}"
        told = bench.run(f"diagnose {bench.pair} --prompt '{prompt_of(60, 441)}' {dumps}")
        alone = bench.run(f"diagnose {bench.pair} --prompt '{prompt_of(60, 442)}'")
    assert told.data["located"]["place"] == "prefill or transfer"
    assert next(rule for rule in told.data["guide"] if rule["rule"].startswith("High KV error"))["applies"]
    assert alone.data["located"]["place"] == SPLIT_ENGINES
    assert told.code == alone.code == DIFFERENT


@pytest.mark.parametrize("bench", ["float32", "bfloat16"], indirect=True)
def test_long_prompts_differ_by_no_more_than_a_floor_above_zero(bench: Bench, tmp_path: Path) -> None:
    rows = [{"id": str(number), "prompt": prompt_of(800, 600 + number)} for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = bench.run(f"batch-compare {bench.pair} --dataset rows.jsonl")
    assert told.data["noise"]["largest_shift"] > 0
    assert told.data["noise"]["largest_delta"] > 0
    assert {row["status"] for row in told.data["samples"]} <= {"equal", "tie"}
    assert max(row["max_delta"] for row in told.data["samples"]) > 0
    assert told.code == PASS


@pytest.mark.parametrize("bench", ["bfloat16"], indirect=True)
def test_kv_that_makes_nan_is_a_fault_behind_the_prefill(bench: Bench, tmp_path: Path) -> None:
    """The last one: infinite KV stays in freed blocks, and breaks later requests of that decode engine, too. Whether
    that reaches what it is asked by itself is chance, and with it whether the transfer or the decode engine is named.
    """
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "0", "prompt": prompt_of(60, 700)}))
    with bench.fault("bitflip:0.2"):
        batch = bench.run(f"batch-compare {bench.pair} --dataset rows.jsonl --noise-floor 4")
        told = bench.run(f"diagnose {bench.pair} {bench.nodes} --prompt '{prompt_of(60, 701)}'")
    assert (batch.code, batch.data["totals"]["real"], batch.data["totals"]["error"]) == (DIFFERENT, 1, 0)
    assert batch.data["samples"][0]["not_numbers"] > 0
    states = {stage["stage"]: stage["state"] for stage in told.data["stages"]}
    assert (states["prefill"], states["pd"]) == ("clean", "broken")
    assert told.data["located"]["place"] in ("transfer", "decode")
    assert told.code == DIFFERENT
