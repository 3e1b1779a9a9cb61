from pathlib import Path

import pytest
from tests.support.scraping import parse

from ppd_wire.metrics.spec_counters import MAX_POSITIONS, SpecCounters

# Written by vLLM 0.32's own SpecDecodingProm after ten drafts of three tokens.
GOLDEN = Path(__file__).parents[3] / "data" / "vllm" / "vllm_0_32_spec_decode_metrics.txt"
TEN = SpecCounters(10, 30, 14, (8, 5, 1))


def line(name, value, **labels):
    written = ",".join(f'{key}="{text}"' for key, text in {"engine": "0", "model_name": "m", **labels}.items())
    return f"vllm:spec_decode_num_{name}_total{{{written}}} {value}\n"


def counted(drafts=10, per_position=(8, 5, 1), **labels):
    totals = (("drafts", drafts), ("draft_tokens", drafts * len(per_position)), ("accepted_tokens", sum(per_position)))
    text = "".join(line(name, value, **labels) for name, value in totals)
    positions = enumerate(per_position)
    return text + "".join(line("accepted_tokens_per_pos", n, position=at, **labels) for at, n in positions)


def test_counters_of_a_real_engine_are_read():
    assert parse(GOLDEN.read_text()).spec == TEN


def test_an_engine_that_does_not_speculate_is_unknown_not_zero():
    assert parse("vllm:num_requests_running 1\n").spec is None
    assert parse(line("drafts", 3)).spec is None


def test_an_engine_that_has_not_drafted_yet_is_zero_not_unknown():
    assert parse(counted(0, (0, 0))).spec == SpecCounters(0, 0, 0, (0, 0))


def test_models_and_data_parallel_ranks_are_summed_by_position():
    assert parse(counted() + counted(4, (3, 2, 2), engine="1")).spec == SpecCounters(14, 42, 21, (11, 7, 3))


@pytest.mark.parametrize("position", ["x", "-1", "7", ""])
def test_positions_that_do_not_follow_each_other_are_left_out(position):
    assert parse(counted() + line("accepted_tokens_per_pos", 1, position=position)).spec == TEN


def test_the_number_of_positions_is_bounded():
    assert len(parse(counted(1, (1,) * (MAX_POSITIONS + 5))).spec.per_position) == MAX_POSITIONS


def test_another_number_of_draft_tokens_is_another_engine():
    after = SpecCounters(20, 40, 20, (12, 8))
    assert after.since(TEN) == after
    assert TEN.since(SpecCounters()) == TEN
