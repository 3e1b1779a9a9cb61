"""endurance.py, small: every kind of request ends as it should, and memory and descriptors are judged."""

import json

import pytest

from endurance import Look, memory, verdicts
from mixed_client import KINDS

pytestmark = pytest.mark.timeout(240)

EXPECTED = {
    "JSON": {"200"},
    "SSE": {"200"},
    "JSON, cancelled": {"left", "200"},  # on a busy machine the answer may be there first
    "SSE, cancelled": {"left", "200"},
    "JSON, engine says 400": {"400"},
    "SSE, engine says 500": {"500"},
    "JSON, engine cuts": {"502"},
    "SSE, engine cuts": {"200 with an error"},
    "JSON, prefill says 500": {"200", "500"},  # a direct turn never gets there
    "JSON, prefill cuts": {"200", "502"},
}


def test_each_kind_of_request_ends_as_it_should_and_nothing_is_left(run_script, tmp_path):
    done = run_script(
        "benchmarks/endurance.py", "--requests", 600, "--connections", 4, "--flat-percent", 1000,
        "--output", tmp_path / "raw.json", "--plot", tmp_path / "figure.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["outcomes"]) == set(EXPECTED) == {kind.name for kind in KINDS}
    for kind, ends in told["outcomes"].items():
        assert set(ends) <= EXPECTED[kind], kind
    assert sum(sum(ends.values()) for ends in told["outcomes"].values()) == told["requests"] == 600
    assert told["descriptors_end"] <= told["descriptors_start"]
    assert "yes nothing still in flight" in done.stdout
    assert "600 of 600" in done.stderr or "of 600" in done.stderr
    assert json.loads((tmp_path / "raw.json").read_text())["looks"][-1]["requests"] == 600
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def looks(*resident_kb):
    return [Look(place * 100, place, each, 20) for place, each in enumerate(resident_kb)]


def test_only_the_second_half_of_the_requests_is_judged():
    found = memory(looks(10, 50, 99, 100, 102, 101, 103))
    assert (found["resident_kb_low"], found["resident_kb_high"]) == (100, 103)
    assert found["spread_percent"] == pytest.approx(3.0)
    assert found["growth_percent"] == pytest.approx(3.0)


def test_memory_that_goes_up_and_down_spreads_without_growing():
    found = memory(looks(10, 50, 99, 100, 110, 104, 100))
    assert (found["spread_percent"], found["growth_percent"]) == (pytest.approx(10.0), pytest.approx(0.0))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"spread_percent": 3.1}, "memory"),
        ({"descriptors_end": 21}, "descriptors"),
        ({"still_in_flight": 1.0}, "in flight"),
        ({"outcomes": {"JSON": {"200": 5, "503": 1}, "SSE": {"200": 5}}}, "plain"),
    ],
)
def test_each_verdict_has_its_own_cause(change, what):
    fine = {
        "spread_percent": 3.0, "descriptors_start": 20, "descriptors_end": 20, "still_in_flight": 0.0,
        "outcomes": {"JSON": {"200": 5}, "SSE": {"200": 5}},
    }  # fmt: skip
    assert all(verdicts(fine, 3.0).values())
    (broken,) = [said for said, is_so in verdicts(fine | change, 3.0).items() if not is_so]
    assert what in broken
