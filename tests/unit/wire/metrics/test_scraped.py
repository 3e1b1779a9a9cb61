from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.scraping import parse

from ppd_wire.metrics.scraped import UNKNOWN, ConnectorFigures, EngineFigures

GOLDEN = Path(__file__).parents[3] / "data" / "vllm" / "vllm_0_32_decode_metrics.txt"


def line(name, value, **labels):
    written = ",".join(f'{key}="{text}"' for key, text in {"engine": "0", "model_name": "m", **labels}.items())
    return f"{name}{{{written}}} {value}\n"


def by_source(local, external, computed, **labels):
    name = "vllm:prompt_tokens_by_source_total"
    values = {"local_cache_hit": local, "external_kv_transfer": external, "local_compute": computed}
    return "".join(line(name, value, source=source, **labels) for source, value in values.items())


# Reading: what `upstream.scrape.read` and the pure part do together


def test_metrics_of_a_real_decode_engine_are_read_completely():
    figures = parse(GOLDEN.read_text())
    # The engine of this recording does not speculate.
    assert [f.name for f in fields(EngineFigures) if getattr(figures, f.name) is None] == ["spec"]
    assert (figures.prompt_local_cache, figures.prompt_external_kv, figures.prompt_computed) == (256, 1588, 57)
    assert (figures.nixl_transfers, figures.nixl_bytes, figures.nixl_transfer_s) == (5, 7864320, 7.126626)
    assert (figures.local_queries, figures.local_hits) == (1901, 256)
    assert (figures.external_queries, figures.external_hits) == (1645, 1588)
    assert (figures.e2e_count, figures.output_token_count) == (6, 6)
    assert figures.tells_sources
    assert figures.tells_transfers


def test_missing_series_are_unknown_not_zero():
    assert parse("") == UNKNOWN
    assert parse("python_info 1.0\n") == UNKNOWN
    figures = parse(line("vllm:num_requests_running", 3))
    assert figures == EngineFigures(running=3)
    assert not figures.tells_sources
    assert not figures.tells_transfers


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "kv_usage"),
        ("vllm:gpu_prefix_cache_hits_total", "vllm:prefix_cache_hits_total", "local_hits"),
        ("vllm:gpu_prefix_cache_queries_total", "vllm:prefix_cache_queries_total", "local_queries"),
        ("vllm:time_per_output_token_seconds_sum", "vllm:inter_token_latency_seconds_sum", "output_token_s"),
        ("vllm:inter_token_latency_seconds_sum", "vllm:request_time_per_output_token_seconds_sum", "output_token_s"),
    ],
)
def test_old_names_are_read_and_new_names_win(old, new, field):
    assert getattr(parse(line(old, 0.25)), field) == 0.25
    assert getattr(parse(line(old, 0.25) + line(new, 0.5)), field) == 0.5


def test_models_and_data_parallel_ranks_are_summed():
    text = line("vllm:num_requests_running", 2) + line("vllm:num_requests_running", 5, engine="1")
    text += by_source(10, 20, 30) + by_source(1, 2, 3, engine="1")
    figures = parse(text)
    assert figures.running == 7
    assert (figures.prompt_local_cache, figures.prompt_external_kv, figures.prompt_computed) == (11, 22, 33)


def test_kv_usage_of_several_ranks_is_their_mean():
    text = line("vllm:kv_cache_usage_perc", 0.2) + line("vllm:kv_cache_usage_perc", 0.6, engine="1")
    assert parse(text).kv_usage == pytest.approx(0.4)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_values_that_are_no_numbers_are_unknown(value):
    assert parse(line("vllm:num_requests_running", value)) == UNKNOWN
    both = line("vllm:num_requests_running", value) + line("vllm:num_requests_running", 1, engine="1")
    assert parse(both).running == 1


def test_names_that_only_begin_alike_are_not_read():
    assert parse(line("vllm:num_requests_waiting_by_reason", 4, reason="deferred")) == UNKNOWN
    assert parse(line("vllm:prompt_tokens_by_source_created", 4, source="local_compute")) == UNKNOWN


def test_a_new_kind_of_source_does_not_disturb():
    text = by_source(1, 2, 3) + line("vllm:prompt_tokens_by_source_total", 9, source="moon")
    assert parse(text).prompt_computed == 3


def test_lines_nobody_reads_may_be_malformed():
    assert parse("vllm:mystery{ 1\n<html>\n" + line("vllm:num_requests_running", 1)).running == 1


@settings(deadline=None)
@given(st.text(alphabet='{}="\\, \n1eN#', max_size=40))
def test_malformed_lines_are_a_value_error_and_nothing_else(tail):
    try:
        parse(f"vllm:num_requests_running{tail}\n")
    except ValueError:
        pass


def connector_line(figure, value, **labels):
    return line(f"vllm:ppd_kv_{figure}_total", value, **labels)


def test_figures_of_our_connector_are_read_by_peer_direction_and_reason():
    text = (
        connector_line("transfer_bytes", 500, direction="recv", peer="10.0.0.1:21001")
        + connector_line("transfer_bytes", 70, direction="recv", peer="other")
        + connector_line("transfer_seconds", 0.25, direction="recv", peer="10.0.0.1:21001")
        + connector_line("blocks", 4, direction="recv", peer="10.0.0.1:21001", what="moved")
        + connector_line("blocks", 9, direction="recv", peer="10.0.0.1:21001", what="skipped")
        + connector_line("blocks", 1, direction="recv", peer="other", what="moved")
        + connector_line("failures", 2, direction="send", peer="10.0.0.3:22001", reason="timeout")
    )
    assert parse(text).connector == ConnectorFigures(
        received_bytes={("recv", "10.0.0.1:21001"): 500, ("recv", "other"): 70},
        received_s={("recv", "10.0.0.1:21001"): 0.25},
        blocks={("recv", "moved"): 5, ("recv", "skipped"): 9},
        failures={("send", "timeout"): 2},
    )
    assert parse(text).tells_transfers


def test_models_and_ranks_are_summed_in_labelled_series_too():
    peer = {"direction": "recv", "peer": "10.0.0.1:21001"}
    text = connector_line("transfer_bytes", 500, **peer) + connector_line("transfer_bytes", 7, **peer, engine="1")
    assert parse(text).connector.received_bytes == {("recv", "10.0.0.1:21001"): 507}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(connector_line("transfer_bytes", 500, direction="send", peer="h:1"), id="what the sender tells"),
        pytest.param(connector_line("transfer_seconds", 5, direction="send", peer="h:1"), id="the sender's time"),
        pytest.param(connector_line("transfer_bytes", "NaN", direction="recv", peer="h:1"), id="no number"),
        pytest.param(connector_line("transfer_bytes", 500, direction="recv"), id="no peer"),
        pytest.param(connector_line("blocks", 5, direction="up", peer="h:1", what="moved"), id="unknown direction"),
        pytest.param(connector_line("blocks", 5, direction="recv", peer="h:1", what="lost"), id="unknown kind"),
        pytest.param(line("vllm:ppd_kv_transfer_bytes_created", 5, direction="recv", peer="h:1"), id="begins alike"),
    ],
)
def test_labelled_series_that_nobody_asked_for_are_not_read(text):
    assert parse(text) == UNKNOWN
