import pytest

from chat_client import Answer, parse_decision
from command_line import shown, table
from compare_pd_ppd import schedule
from comparison import TurnResult, as_json, compare, first_token_s, sentence, source_table, turn_table, waits
from engine_figures import figures_of, gained, route_decisions

ROUTES = {"pd": "pd", "ppd": "direct"}


def turn(mode, conversation, number, first_token_ms, sources=None, route=None):
    answer = Answer(
        text="", first_token_s=first_token_ms / 1e3, total_s=first_token_ms / 1e3 + 1, prompt_tokens=100 * number,
        completion_tokens=3, cached_tokens=0, route=route or (ROUTES[mode] if number > 1 else "pd"), reason="", turn=1,
    )  # fmt: skip
    return TurnResult(mode=mode, conversation=conversation, turn=number, answer=answer, sources=sources)


@pytest.fixture
def results():
    """Two conversations of three turns per mode: later turns take 400 ms in pd, 100 ms in ppd."""
    times = {"pd": (500, 400, 400), "ppd": (500, 100, 100)}
    return [
        turn(mode, conversation, number, time)
        for mode in times
        for conversation in range(2)
        for number, time in enumerate(times[mode], 1)
    ]


def test_turn_table_shows_medians_speed_up_and_route(results):
    lines = turn_table(results, first_token_s).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "2", "200", "400.0", "100.0", "4.00x", "D-direct",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[-1].split("|")[1:-1]] == ["Total", "", "1,300.0", "700.0", "1.86x", ""]
    assert len({len(line) for line in lines}) == 1


def test_route_note_counts_routes_that_differ(results):
    results[-1] = turn("ppd", 1, 3, 400, route="pd")
    assert "D-direct 1, P->D 1" in turn_table(results, first_token_s)


def test_later_turns_are_compared_without_turn_1(results):
    found = compare(results, first_token_s, "first token", seed=0)
    assert found.ratio.value == pytest.approx(0.25)
    assert found.turns == {"pd": 4, "ppd": 4}
    assert as_json(found)["median_s"] == {"pd": 0.4, "ppd": 0.1}
    assert "ppd/pd 0.250" in sentence(found)


def test_single_turn_conversations_have_nothing_to_compare(results):
    assert compare([each for each in results if each.turn == 1], first_token_s, "first token", seed=0) is None


def test_wait_is_found_by_mode_and_turn_and_can_be_left_out(results):
    stalled = turn("ppd", 2, 2, 30_000)
    everything = [*results, stalled, turn("pd", 2, 2, 600)]
    assert waits(everything) == [stalled]
    found = compare(everything, first_token_s, "first token", seed=0, without=[stalled])
    assert found.waits == {"pd": 0, "ppd": 1}
    assert found.turns == {"pd": 5, "ppd": 4}
    assert "without 1 wait:" in sentence(found)


def test_source_table_is_the_mean_of_what_engines_told(results):
    assert source_table(results) is None
    told = {"local_cache_hit": 64.0, "external_kv_transfer": 0.0, "local_compute": 36.0}
    more = [*results, turn("ppd", 2, 2, 100, sources=told), turn("ppd", 3, 2, 100, sources={"local_compute": 64.0})]
    row = [cell.strip() for cell in source_table(more).splitlines()[2].split("|")[1:-1]]
    assert row == ["2", "-", "-", "-", "32", "0", "50"]


def test_schedule_pairs_modes_and_changes_which_is_first():
    alternating = schedule(3, "alternate", 0)
    assert alternating == [("pd", 0), ("ppd", 0), ("ppd", 1), ("pd", 1), ("pd", 2), ("ppd", 2)]
    drawn = schedule(40, "random", 1)
    assert drawn == schedule(40, "random", 1)
    assert {drawn[place][0] for place in range(0, 80, 2)} == {"pd", "ppd"}
    assert all({drawn[place][0], drawn[place + 1][0]} == {"pd", "ppd"} for place in range(0, 80, 2))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("pd;reason=first_turn;turn=1", ("pd", "first_turn", 1)),
        ("direct;reason=known_history;turn=12", ("direct", "known_history", 12)),
        ("", ("?", "?", None)),
        ("none;turn=x", ("none", "?", None)),
    ],
)
def test_decision_header_is_read(header, expected):
    assert parse_decision(header) == expected


def test_engine_figures_sum_over_labels_and_take_those_of_the_role():
    text = (
        '# TYPE vllm:request_success_total counter\n'
        'vllm:request_success_total{finished_reason="stop"} 2\nvllm:request_success_total{finished_reason="length"} 3\n'
        'vllm:prompt_tokens_by_source_total{source="local_compute"} 7\nvllm:nixl_bytes_transferred_sum 64\n'
    )  # fmt: skip
    assert figures_of("prefill", text) == {"prefill_requests": 5}
    decode = figures_of("decode", text)
    assert decode == {"decode_requests": 5, "local_compute": 7, "transfer_bytes": 64}
    assert gained({"decode_requests": 4}, decode) == {"decode_requests": 1, "local_compute": 7, "transfer_bytes": 64}


def test_route_decisions_are_read_by_mode_and_route():
    text = (
        'ppd_route_decisions_total{mode="ppd",route="pd",reason="first_turn"} 2\n'
        'ppd_route_decisions_total{mode="ppd",route="pd",reason="home_gone"} 1\n'
        'ppd_route_decisions_total{mode="ppd",route="direct",reason="known_history"} 8\n'
    )
    assert route_decisions(text) == {"ppd/pd": 3, "ppd/direct": 8}


def test_table_aligns_and_shows_unknown_as_a_dash():
    assert table(["a", "bb"], [["1", "2"], ["10", shown(None)]]).splitlines() == [
        "| a  | bb |", "|----|----|", "| 1  |  2 |", "| 10 |  - |",
    ]  # fmt: skip
    assert shown(1234.56, digits=1) == "1,234.6"
