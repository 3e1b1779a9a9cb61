"""Every benchmark once, small, against simulated engines that answer at once."""

import json

import pytest

# Each test starts an interpreter or more; on a busy machine that alone takes seconds.
pytestmark = pytest.mark.timeout(240)

PNG = b"\x89PNG"


def last_line(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_client_prints_a_row_per_turn(cluster, run_script):
    done = run_script("scripts/test_client.py", "--url", cluster.proxy_url, "--turns", 3, "--output-tokens", 4)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [(row[0], row[-4], row[-3]) for row in rows] == [
        ("1", "pd", "first_turn"), ("2", "direct", "known_history"), ("3", "direct", "known_history"),
    ]  # fmt: skip


def test_client_without_streaming_has_no_first_token(cluster, run_script):
    done = run_script("scripts/test_client.py", "--url", cluster.proxy_url, "--turns", 1, "--no-stream")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split()[1] == "-"


def test_client_tells_why_a_turn_failed(cluster, run_script):
    done = run_script("scripts/test_client.py", "--url", cluster.proxy_url, "--model", "nobody", "--turns", 1)
    assert done.returncode == 1
    assert "status 404" in done.stderr
    assert "nobody" in done.stderr


def test_comparison_counts_prefill_requests_and_tokens_by_source(cluster, run_script, tmp_path):
    done = run_script(
        "benchmarks/compare_pd_ppd.py", "--url", cluster.proxy_url, "--turns", 3, "--conversations", 2,
        "--first-tokens", 200, "--input-tokens", 40, "--output-tokens", 5, "--warmup", 0, "--order", "random",
        "--output", tmp_path / "raw.json", "--plot", tmp_path / "figure.png",
    )  # fmt: skip
    summary = last_line(done)
    assert summary["prefill_requests_per_conversation"] == {
        "pd": {"proxy": 3.0, "engines": 3.0},
        "ppd": {"proxy": 1.0, "engines": 1.0},
    }
    assert summary["failed"] == 0
    pd, ppd = (summary["prompt_tokens_by_source"][mode]["3"] for mode in ("pd", "ppd"))
    assert pd["external_kv_transfer"] > 0 == ppd["external_kv_transfer"]
    assert ppd["local_compute"] > 0 == pd["local_compute"]
    assert ppd["local_cache_hit"] > 200
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert raw["conversations"][0]["turns"][0]["route"] == "pd"
    assert sum(len(each["turns"]) for each in raw["conversations"]) == 12
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)


def test_comparison_leaves_the_mode_as_it_was(cluster, run_script):
    sizes = ["--turns", 1, "--conversations", 1, "--first-tokens", 20, "--output-tokens", 2, "--warmup", 0]
    done = run_script("benchmarks/compare_pd_ppd.py", "--url", cluster.proxy_url, *sizes, "--no-stream")
    assert "first_token" not in last_line(done)
    client = run_script("benchmarks/multi_turn.py", "--url", cluster.proxy_url, "--turns", 1, "--output-tokens", 1)
    assert last_line(client)["mode"] == "ppd"


@pytest.mark.parametrize("form", ["chat", "completion"])
def test_multi_turn_shows_cumulative_tokens_and_routes(cluster, run_script, tmp_path, form):
    done = run_script(
        "benchmarks/multi_turn.py", "--url", cluster.proxy_url, "--turns", 3, "--input-tokens", 50,
        "--output-tokens", 5, "--format", form, "--kv-bytes-per-token", 1024, "--output", tmp_path / "turns.json",
        "--plot", tmp_path / "turns.png",
    )  # fmt: skip
    turns = last_line(done)["turns"]
    assert [turn["route"] for turn in turns] == ["pd", "direct", "direct"]
    assert turns[0]["prompt_tokens"] < turns[1]["prompt_tokens"] < turns[2]["prompt_tokens"]
    assert turns[2]["cached_tokens"] >= turns[0]["prompt_tokens"]
    assert json.loads((tmp_path / "turns.json").read_text())["turns"] == turns
    assert (tmp_path / "turns.png").read_bytes().startswith(PNG)
    assert "KV size" in done.stdout


def test_bandwidth_reports_what_the_connector_moved(cluster, run_script, tmp_path):
    done = run_script(
        "benchmarks/bandwidth.py", "--url", cluster.proxy_url, "--prompt-lengths", 50, 200, "--iterations", 2,
        "--plot", tmp_path / "bandwidth.png",
    )  # fmt: skip
    summary = last_line(done)
    assert summary["kv_bytes_per_token"] == 131_072
    assert [row["prompt_tokens"] for row in summary["rows"]] == [pytest.approx(50, abs=20), pytest.approx(200, abs=40)]
    assert all(row["apparent_gb_per_s"] > 0 for row in summary["rows"])
    assert "10GbE" in done.stdout
    assert "layers x 2" in done.stdout
    assert (tmp_path / "bandwidth.png").read_bytes().startswith(PNG)


def test_token_size_is_computed_from_a_model_config(cluster, run_script, tmp_path):
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    done = run_script(
        "benchmarks/bandwidth.py", "--url", cluster.proxy_url, "--prompt-lengths", 50, "--iterations", 1,
        "--model-config", tmp_path / "config.json",
    )  # fmt: skip
    assert last_line(done)["kv_bytes_per_token"] == 2 * 2 * 2 * 8 * 2


@pytest.mark.parametrize(
    ("script", "arguments", "part"),
    [
        ("compare_pd_ppd.py", ["--turns", "0"], "at least 1"),
        ("compare_pd_ppd.py", ["--plot", "figure.gif"], ".png or .svg"),
        ("multi_turn.py", ["--model-config", "nowhere.json"], "nowhere.json"),
        ("overhead.py", ["--proxy", "name"], "NAME=COMMAND"),
        ("overhead.py", ["--connections", "65"], "side by side"),
        ("overhead.py", ["--peer", "nobody=x"], "vllm-router"),
        ("overhead.py", ["--python", "no-such-python"], "no-such-python"),
    ],
)
def test_wrong_flags_are_refused_by_name(run_script, script, arguments, part):
    done = run_script(f"benchmarks/{script}", *arguments)
    assert done.returncode == 2
    assert part in done.stderr


def test_missing_proxy_is_one_line(run_script):
    done = run_script("benchmarks/compare_pd_ppd.py", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: http://127.0.0.1:9/v1/models")
    assert "Traceback" not in done.stderr


def test_the_cost_of_batch_compare_is_that_of_all_its_requests(run_script):
    summary = last_line(run_script("benchmarks/acc_cpu.py", "--samples", 600))["ppd-acc"]
    (run,) = summary["runs"]
    assert (run["samples"], run["requests"]) == (600, 2 * 600 + 3 * 20)
    assert summary["cpu_ms_per_request"] == pytest.approx(1000 * run["cpu_s"] / run["requests"])


def test_check_kv_measures_its_memory_and_time(run_script, tmp_path):
    done = run_script("benchmarks/check_kv.py", "--gigabytes", 0.05, "--directory", tmp_path, "--json")
    figures = last_line(done)
    assert (figures["exit"], list(tmp_path.iterdir())) == (0, [])
    assert figures["bytes"] > 2 * 60_000_000
    assert 30 < figures["peak_mb"] < 400


def test_check_kv_fails_where_a_limit_is_exceeded(run_script, tmp_path):
    done = run_script("benchmarks/check_kv.py", "--gigabytes", 0.05, "--directory", tmp_path, "--limit-mb", 1)
    assert done.returncode == 1
    assert "at most 1)" in done.stdout
