from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.scraping import parse

from ppd_core.fleet.readings import PromptTokens, TokenLedger, delta, from_usage, is_restarted
from ppd_wire.metrics.scraped import UNKNOWN, ConnectorFigures, EngineFigures

GOLDEN = Path(__file__).parents[3] / "data" / "vllm" / "vllm_0_32_decode_metrics.txt"


def line(name, value, **labels):
    told = ",".join(f'{key}="{text}"' for key, text in {"engine": "0", "model_name": "m", **labels}.items())
    return f"{name}{{{told}}} {value}\n"


def by_source(local, external, computed, **labels):
    name = "vllm:prompt_tokens_by_source_total"
    values = {"local_cache_hit": local, "external_kv_transfer": external, "local_compute": computed}
    return "".join(line(name, value, source=source, **labels) for source, value in values.items())


def gained(local=0.0, external=0.0, computed=0.0):
    return EngineFigures(prompt_local_cache=local, prompt_external_kv=external, prompt_computed=computed)


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
    told = {"direction": "recv", "peer": "10.0.0.1:21001"}
    text = connector_line("transfer_bytes", 500, **told) + connector_line("transfer_bytes", 7, **told, engine="1")
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


# Deltas


def test_delta_is_what_the_counters_gained_and_leaves_gauges_out():
    before = EngineFigures(running=3, local_hits=10, nixl_bytes=100, kv_usage=0.5)
    after = EngineFigures(running=1, local_hits=15, nixl_bytes=100, kv_usage=0.1)
    assert delta(before, after) == EngineFigures(local_hits=5, nixl_bytes=0)


def test_delta_is_unknown_where_one_reading_does_not_say():
    assert delta(UNKNOWN, EngineFigures(local_hits=5)) == UNKNOWN
    assert delta(EngineFigures(local_hits=5), UNKNOWN) == UNKNOWN


def test_after_a_restart_everything_counted_is_gain():
    before = EngineFigures(local_hits=100, external_hits=1, process_start_s=1.0)
    after = EngineFigures(local_hits=7, external_hits=2, process_start_s=1.0)
    assert is_restarted(before, after)
    assert delta(before, after) == EngineFigures(local_hits=7, external_hits=2)


def test_a_restart_is_seen_by_its_start_time_when_no_counter_went_down():
    before = EngineFigures(local_hits=100, process_start_s=1.0)
    after = EngineFigures(local_hits=150, process_start_s=2.0)
    assert delta(before, after) == EngineFigures(local_hits=150)


def received(process_start_s=1.0, **by_peer):
    kv_bytes = {("recv", peer): value for peer, value in by_peer.items()}
    return EngineFigures(process_start_s=process_start_s, connector=ConnectorFigures(received_bytes=kv_bytes))


def test_a_peer_that_was_not_met_before_counts_from_zero():
    assert delta(received(), received(a=5)).connector.received_bytes == {("recv", "a"): 5}
    gained = delta(received(a=5), received(a=7, b=1))
    assert gained.connector.received_bytes == {("recv", "a"): 2, ("recv", "b"): 1}


def test_a_peer_that_sent_nothing_more_gained_nothing():
    assert delta(received(a=5, b=1), received(a=5, b=2)).connector.received_bytes == {("recv", "b"): 1}


def test_a_first_reading_is_only_a_starting_point_for_labelled_series_too():
    assert delta(UNKNOWN, received(a=5)) == UNKNOWN


@pytest.mark.parametrize("after", [{"a": 3}, {"b": 9}], ids=["lower", "gone"])
def test_a_labelled_counter_that_went_down_is_a_restart(after):
    assert is_restarted(received(a=5), received(**after))
    assert delta(received(a=5), received(**after)) == EngineFigures(
        connector=ConnectorFigures(received_bytes={("recv", peer): value for peer, value in after.items()})
    )


def test_all_that_a_restarted_engine_received_is_gain():
    gained = delta(received(a=5), received(process_start_s=2.0, a=6))
    assert gained.connector.received_bytes == {("recv", "a"): 6}


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=20))
def test_deltas_add_up_over_restarts(steps):
    """Each step: whether the engine restarted, and how much it counted since."""
    reading, process, total, counted = EngineFigures(local_hits=0, process_start_s=0), 0, 0.0, 0.0
    for restarts, amount in steps:
        process += restarts
        counted = amount if restarts else counted + amount
        current = EngineFigures(local_hits=counted, process_start_s=process)
        total += delta(reading, current).local_hits
        reading = current
    assert total == sum(amount for _, amount in steps)


# Where prompt tokens came from


def test_usage_splits_into_cache_and_computed():
    assert from_usage(100, 64) == PromptTokens(local_cache=64, computed=36)
    assert from_usage(100, 0) == PromptTokens(computed=100)
    assert from_usage(100, None) == PromptTokens(unknown=100)
    assert from_usage(100, 120) == PromptTokens(local_cache=100)


def test_without_other_requests_all_the_engine_counted_is_pds():
    ledger = TokenLedger()
    share = ledger.settle(gained(local=128, external=1285, computed=5), is_idle=True, now=0)
    assert share == PromptTokens(local_cache=128, external_kv=1285, computed=5)


def test_direct_requests_are_taken_off():
    ledger = TokenLedger()
    ledger.add_other(PromptTokens(local_cache=1280, computed=33))
    share = ledger.settle(gained(local=1408, external=1285, computed=34), is_idle=True, now=0)
    assert share == PromptTokens(local_cache=128, external_kv=1285, computed=1)


def test_what_the_engine_has_not_counted_yet_is_owed_to_the_next_reading():
    ledger = TokenLedger()
    ledger.add_other(PromptTokens(local_cache=100))
    assert ledger.settle(gained(), is_idle=True, now=0).total == 0
    assert ledger.settle(gained(local=100), is_idle=True, now=5).total == 0
    assert ledger.settle(gained(local=7), is_idle=True, now=10) == PromptTokens(local_cache=7)


def test_a_direct_request_in_flight_is_not_taken_for_pds():
    ledger = TokenLedger()
    assert ledger.settle(gained(local=1280, computed=33, external=10), is_idle=False, now=0) == PromptTokens(
        external_kv=10
    )
    ledger.add_other(PromptTokens(local_cache=1280, computed=33))
    assert ledger.settle(gained(), is_idle=True, now=5).total == 0


def test_under_steady_load_pds_share_comes_after_the_hold_time():
    ledger = TokenLedger(hold_s=60)
    assert ledger.settle(gained(computed=50), is_idle=False, now=0).total == 0
    assert ledger.settle(gained(), is_idle=False, now=30).total == 0
    assert ledger.settle(gained(computed=9), is_idle=False, now=60) == PromptTokens(computed=50)
    assert ledger.settle(gained(), is_idle=False, now=120) == PromptTokens(computed=9)


def test_where_direct_requests_do_not_tell_pds_rest_is_unknown_too():
    ledger = TokenLedger()
    ledger.add_other(PromptTokens(unknown=100))
    share = ledger.settle(gained(local=90, computed=30, external=500), is_idle=True, now=0)
    assert share == PromptTokens(external_kv=500, unknown=20)


requests = st.tuples(
    st.sampled_from(["pd", "direct", "silent"]), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500)
)
# What happens: a request reaches its first token, the oldest one ends, or the engine is read.
events = st.lists(st.one_of(requests, st.just("end"), st.just("read")), max_size=40)


@settings(deadline=None)
@given(events, st.floats(0, 30), st.booleans())
def test_over_time_the_sources_add_up_to_what_the_engine_reports(steps, pace_s, is_split_known):
    """`silent` requests are direct ones whose usage does not tell the cached tokens."""
    ledger, in_flight, pending = TokenLedger(hold_s=20), [], [0, 0, 0]
    reported, shares, others, now = 0, [], [], 0.0

    def read():
        share = ledger.settle(gained(*pending), is_idle=not in_flight, now=now)
        assert min(share) >= 0
        shares.append(share)
        pending[:] = [0, 0, 0]

    def end():
        route, local, computed = in_flight.pop(0)
        if route != "pd":
            told = PromptTokens(local_cache=local, computed=computed)
            others.append(PromptTokens(unknown=local + computed) if route == "silent" else told)
            ledger.add_other(others[-1])

    for step in steps:
        now += pace_s
        if step == "read":
            read()
        elif step == "end":
            if in_flight:
                end()
        else:
            route, local, external, computed = step
            route = "direct" if route == "silent" and is_split_known else route
            external = external if route == "pd" else 0
            pending[:] = [pending[0] + local, pending[1] + external, pending[2] + computed]
            reported += local + external + computed
            in_flight.append((route, local, computed))
    while in_flight:
        end()
    read()
    too_early = sum(share.total for share in (*shares, *others)) - reported
    assert too_early >= 0
    # What was given to pd too early under steady load is taken off its next requests.
    later = ledger.settle(gained(local=too_early, computed=too_early), is_idle=True, now=now + 1)
    assert 2 * too_early - later.total == too_early
