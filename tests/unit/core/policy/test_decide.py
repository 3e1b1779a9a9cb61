"""Which route a request takes and why: situations and decisions."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import aggregated, decode, fleet, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.decide import decide
from ppd_core.policy.placement import SLACK_TOKENS
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.situation import Situation
from ppd_wire.errors import NoRoute

P1, P2, D1, D2, D3, A1, A2 = (
    prefill("p1"),
    prefill("p2"),
    decode("d1"),
    decode("d2"),
    decode("d3"),
    aggregated(),
    aggregated("a2"),
)
PP, PD = prefill("pp", handoff="p2p_nccl"), decode("pd", handoff="p2p_nccl")
PPD = decode("ppd", handoff="p2p_nccl", is_ppd=True)
SPLIT = fleet(P1, P2, D1, D2)
FIRST = History()
MUCH = SLACK_TOKENS + 1


def known(home="d1", *, answers=1, tokens=1000, incarnation=0):
    return History(
        known_answers=answers, is_complete=True, has_answers=True,
        home=Home(engine_id=f"{home}:8000", incarnation=incarnation, held_tokens=tokens),
    )  # fmt: skip


def ids(*names):
    return frozenset(f"{name}:8000" for name in names)


def loads(**tokens):
    return {f"{name}:8000": value for name, value in tokens.items()}


def plan(history=FIRST, engines=SPLIT, *, mode="ppd", demand=None, **situation):
    demand = Demand(history=history, spread_key=b"key", **(demand or {}))
    return decide(demand, Situation(mode=mode, fleet=engines, **situation))


def in_words(made):
    legs = [engine.id.split(":")[0] for engine in (made.prefill, made.decode) if engine is not None]
    return made.route, str(made.reason), *legs


def refusal(*args, **kwargs):
    with pytest.raises(NoRoute) as caught:
        plan(*args, **kwargs)
    assert caught.value.status == 503
    return caught.value.reason


# The table

ONE = fleet(P1, D1)
UNKNOWN = History(has_answers=True)
PARTLY = History(known_answers=1, has_answers=True, home=known().home)
FORGOTTEN = History(known_answers=1, is_complete=True, has_answers=True)
SYSTEM_ONLY = History(home=known().home)
SITUATIONS = {
    "first turn": ((FIRST, ONE), {}, ("pd", "first_turn", "p1", "d1")),
    "known history": ((known(), ONE), {}, ("direct", "known_history", "d1")),
    "mode pd": ((known(), ONE), {"mode": "pd"}, ("pd", "mode_pd", "p1", "d1")),
    "first turn in mode pd": ((FIRST, ONE), {"mode": "pd"}, ("pd", "first_turn", "p1", "d1")),
    "invented history": ((UNKNOWN, ONE), {}, ("pd", "history_unknown", "p1", "d1")),
    "edited history": ((PARTLY, ONE), {}, ("pd", "history_unknown", "p1", "d1")),
    "shared system prompt": ((SYSTEM_ONLY, ONE), {}, ("pd", "first_turn", "p1", "d1")),
    "home gone": ((known("d9"), ONE), {}, ("pd", "home_gone", "p1", "d1")),
    "home forgotten": ((FORGOTTEN, ONE), {}, ("pd", "home_gone", "p1", "d1")),
    "home restarted": ((known(incarnation=1), ONE), {}, ("pd", "home_gone", "p1", "d1")),
    "home alone and loaded": ((known(), ONE), {"loads": loads(d1=9**9)}, ("direct", "known_history", "d1")),
    "home overloaded": ((known(), fleet(P1, D1, D2)), {"loads": loads(d1=MUCH)}, ("pd", "home_overloaded", "p1", "d2")),
    "stock p2p_nccl": ((known("pd"), fleet(PP, PD)), {}, ("pd", "handoff_not_direct_safe", "pp", "pd")),
    "ppd p2p_nccl": ((known("ppd"), fleet(PP, PPD)), {}, ("direct", "known_history", "ppd")),
    "trusted p2p_nccl": ((known("pd"), fleet(PP, PD)), {"trust_direct": True}, ("direct", "known_history", "pd")),
    "direct without prefill engines": ((known(), fleet(D1)), {}, ("direct", "known_history", "d1")),
    "no prefill engine": ((FIRST, fleet(D1, A1)), {}, ("aggregated", "no_prefill_engine", "a1")),
    "no decode engine": ((FIRST, fleet(P1, A1)), {}, ("aggregated", "no_decode_engine", "a1")),
    "only aggregated": ((FIRST, fleet(A1)), {}, ("aggregated", "no_prefill_engine", "a1")),
    "no matching pair": ((FIRST, fleet(PP, D1, A1)), {}, ("aggregated", "no_matching_pair", "a1")),
    "home gone, no decode": ((known(), fleet(P1, A1)), {}, ("aggregated", "no_decode_engine", "a1")),
}  # fmt: skip


@pytest.mark.parametrize(("given_", "situation", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_situation_leads_to_route_reason_and_engines(given_, situation, expected):
    assert in_words(plan(*given_, **situation)) == expected


@pytest.mark.parametrize(
    ("engines", "reason"),
    [
        (fleet(), "no_prefill_engine"),
        (fleet(D1), "no_prefill_engine"),
        (fleet(P1), "no_decode_engine"),
        (fleet(PP, D1), "no_matching_pair"),
        (fleet(prefill("x", handoff="p2p_nccl", zmq_address=None), PD), "no_matching_pair"),
    ],
)
def test_p15_without_a_route_the_refusal_says_what_is_missing(engines, reason):
    assert refusal(FIRST, engines) == reason


WHOLE = {
    "multi_sequence": {"is_multi_sequence": True},
    "prompt_logprobs": {"wants_prompt_logprobs": True},
    "endpoint_not_split": {"is_split_endpoint": False},
}


@pytest.mark.parametrize(("reason", "demand"), WHOLE.items(), ids=WHOLE)
class TestRequestsThatCannotBeSplit:
    def test_go_to_an_aggregated_engine(self, reason, demand):
        assert in_words(plan(known(), fleet(P1, D1, A1), demand=demand)) == ("aggregated", reason, "a1")

    def test_go_to_a_decode_engine_alone_without_one(self, reason, demand):
        for mode in ("pd", "ppd"):
            assert in_words(plan(FIRST, ONE, mode=mode, demand=demand)) == ("direct", reason, "d1")

    def test_prefer_their_home(self, reason, demand):
        assert in_words(plan(known("d2"), SPLIT, demand=demand, loads=loads(d2=10))) == ("direct", reason, "d2")

    def test_go_only_where_direct_requests_are_safe(self, reason, demand):
        assert in_words(plan(FIRST, fleet(PP, PD, D3), demand=demand, loads=loads(d3=9**9))) == ("direct", reason, "d3")
        assert in_words(plan(FIRST, fleet(PP, PD), demand=demand, trust_direct=True)) == ("direct", reason, "pd")

    def test_are_refused_where_none_is(self, reason, demand):
        expected = "handoff_not_direct_safe" if reason == "endpoint_not_split" else reason
        assert refusal(FIRST, fleet(PP, PD), demand=demand) == expected
        assert refusal(FIRST, fleet(P1), demand=demand) == "no_decode_engine"

    def test_never_get_a_prefill_engine_on_a_retry_either(self, reason, demand):
        made = plan(known(), SPLIT, demand=demand, cause=DecisionReason.DECODE_FAILED, failed=ids("d1"))
        assert in_words(made)[:2] == ("direct", reason)

    def test_leave_a_home_that_failed_them(self, reason, demand):
        made = plan(known("d1"), SPLIT, demand=demand, cause=DecisionReason.DECODE_FAILED, failed=ids("d1"))
        assert in_words(made) == ("direct", reason, "d2")


# Home first, bounded


def test_p33_a_home_keeps_its_conversation_while_the_difference_is_bounded():
    history = known(tokens=0)
    assert plan(history, loads=loads(d1=SLACK_TOKENS)).reason == "known_history"
    assert plan(history, loads=loads(d1=SLACK_TOKENS + 1)).reason == "home_overloaded"
    assert plan(history, loads=loads(d1=SLACK_TOKENS + 12_500, d2=10_000)).reason == "known_history"
    assert plan(history, loads=loads(d1=SLACK_TOKENS + 12_501, d2=10_000)).reason == "home_overloaded"


def test_p33_a_long_conversation_moves_later():
    assert plan(known(tokens=50_000), loads=loads(d1=50_000)).reason == "known_history"
    assert plan(known(tokens=50_000), loads=loads(d1=50_001)).reason == "home_overloaded"


def test_p33_the_least_loaded_other_engine_counts():
    engines = fleet(P1, D1, D2, D3)
    assert plan(known(), engines, loads=loads(d1=MUCH, d2=MUCH, d3=0)).reason == "home_overloaded"
    assert plan(known(), engines, loads=loads(d1=MUCH, d2=MUCH, d3=MUCH)).reason == "known_history"


def test_an_overloaded_home_still_serves_when_there_is_no_pair_to_move_to():
    """Leaving a home is worth a prefill; without a prefill engine there is nothing to leave for, least of all a 503."""
    made = plan(known(), fleet(D1, D2), loads=loads(d1=MUCH))
    assert (made.route, made.decode) == ("direct", D1)


def test_a_split_turn_goes_to_its_home_for_the_prefix_cache():
    assert plan(known("d2"), mode="pd", loads=loads(d2=100)).decode == D2
    assert plan(PARTLY, loads=loads(d1=100)).decode == D1


def test_a_split_turn_leaves_an_overloaded_home():
    assert plan(known("d2"), mode="pd", loads=loads(d2=MUCH)).decode == D1


def test_a_shared_system_prompt_is_no_reason_to_crowd_one_engine():
    assert plan(SYSTEM_ONLY, loads=loads(d1=1)).decode == D2


def test_the_turn_counts_known_answers():
    assert plan(FIRST).turn == 1
    assert plan(known(answers=3)).turn == 4
    assert plan(known("d9", answers=1)).turn == 2


# After a failure


def test_another_try_is_split_and_says_why():
    made = plan(known(), cause=DecisionReason.DECODE_FAILED, failed=ids("d1"))
    assert in_words(made)[:2] == ("pd", "decode_failed")
    assert made.decode == D2


def test_a_failed_engine_is_asked_again_only_if_there_is_no_other():
    assert plan(cause=DecisionReason.PREFILL_FAILED, failed=ids("p1"), loads=loads(p2=9**9)).prefill == P2
    assert plan(cause=DecisionReason.DECODE_FAILED, failed=ids("d2"), loads=loads(d1=9**9)).decode == D1
    assert in_words(plan(FIRST, ONE, cause=DecisionReason.DECODE_FAILED, failed=ids("p1", "d1")))[2:] == ("p1", "d1")


def test_a_failed_prefill_engine_is_avoided_together_with_its_partner():
    engines = fleet(P1, D1, PP, PD)
    made = plan(FIRST, engines, cause=DecisionReason.PREFILL_FAILED, failed=ids("p1"), loads=loads(pd=100))
    assert in_words(made) == ("pd", "prefill_failed", "pp", "pd")


def test_an_unreachable_engine_is_never_asked_again():
    assert plan(cause=DecisionReason.PREFILL_FAILED, unreachable=ids("p1"), loads=loads(p2=9**9)).prefill == P2
    assert refusal(FIRST, ONE, cause=DecisionReason.PREFILL_FAILED, unreachable=ids("p1")) == "no_prefill_engine"
    assert refusal(FIRST, ONE, cause=DecisionReason.DECODE_FAILED, unreachable=ids("d1")) == "no_decode_engine"
    assert refusal(FIRST, fleet(A1), unreachable=ids("a1")) == "no_prefill_engine"


def test_p16_the_aggregated_engines_serve_when_the_others_are_unreachable():
    for gone in ("p1", "d1"):
        made = plan(FIRST, fleet(P1, D1, A1), cause=DecisionReason.DECODE_FAILED, unreachable=ids(gone))
        assert in_words(made)[0] == "aggregated"


def test_kv_that_waits_goes_from_its_prefill_engine_to_another_decode_engine():
    made = plan(cause=DecisionReason.DECODE_FAILED, unreachable=ids("d1"), keep=P2, loads=loads(p2=9**9))
    assert in_words(made) == ("pd", "decode_failed", "p2", "d2")


def test_kv_that_waits_stays_with_its_protocol_and_engine():
    away = prefill("p9")  # draining meanwhile: it takes no new requests, but its KV is there
    made = plan(FIRST, fleet(P1, D2, PP, PD), cause=DecisionReason.DECODE_FAILED, keep=away)
    assert (made.prefill, made.decode) == (away, D2)
    assert refusal(FIRST, fleet(PP, PD), cause=DecisionReason.DECODE_FAILED, keep=P1) == "no_matching_pair"


def test_p16_kv_that_no_decode_engine_can_take_is_no_reason_to_refuse():
    made = plan(FIRST, fleet(P1, D1, A1), cause=DecisionReason.DECODE_FAILED, unreachable=ids("d1"), keep=P1)
    assert in_words(made) == ("aggregated", "no_decode_engine", "a1")


# Any situation

ENGINES = (P1, P2, D1, D2, D3, A1, A2, PP, PD, PPD)
NAMES = [engine.id for engine in ENGINES]
HISTORIES = st.builds(
    History,
    known_answers=st.integers(0, 3),
    is_complete=st.booleans(),
    has_answers=st.booleans(),
    home=st.none() | st.builds(
        Home, engine_id=st.sampled_from([*NAMES, "gone:8000"]), incarnation=st.integers(0, 1),
        held_tokens=st.integers(0, 50_000),
    ),
)  # fmt: skip
DEMANDS = st.builds(
    Demand, history=HISTORIES, spread_key=st.binary(max_size=4), is_multi_sequence=st.booleans(),
    wants_prompt_logprobs=st.booleans(), is_split_endpoint=st.booleans(),
)  # fmt: skip
SETUPS = st.builds(
    Situation,
    mode=st.sampled_from(["pd", "ppd"]),
    fleet=st.sets(st.sampled_from(ENGINES)).map(lambda engines: fleet(*engines)),
    loads=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 40_000)),
    trust_direct=st.booleans(),
    failed=st.frozensets(st.sampled_from(NAMES), max_size=3),
    unreachable=st.frozensets(st.sampled_from(NAMES), max_size=3),
    cause=st.none() | st.sampled_from([DecisionReason.PREFILL_FAILED, DecisionReason.DECODE_FAILED]),
)


def attempt(demand, situation):
    try:
        return decide(demand, situation)
    except NoRoute as error:
        return error.reason, error.message


@given(demand=DEMANDS, situation=SETUPS)
@settings(max_examples=400, deadline=None)
def test_every_decision_is_one_that_can_be_carried_out(demand, situation):
    made = attempt(demand, situation)
    assert made == attempt(demand, situation)
    view = situation.fleet
    if isinstance(made, tuple):
        assert not [each for each in view.aggregated if each.id not in situation.unreachable]
        return
    assert made.decode.id not in situation.unreachable
    assert made.turn == demand.history.turn
    whole = demand.is_multi_sequence or demand.wants_prompt_logprobs or not demand.is_split_endpoint
    is_safe = situation.trust_direct or HANDOFFS[made.decode.handoff].is_direct_safe(made.decode)
    match made.route:
        case "pd":
            assert not whole
            assert made.decode in view.decode
            assert made.prefill in view.prefill
            assert made.prefill.id not in situation.unreachable
            assert HANDOFFS[made.decode.handoff].can_pair(made.prefill, made.decode)
        case "direct":
            assert made.prefill is None
            assert made.decode in view.decode
            assert is_safe
            assert whole or (made.decode.id == demand.history.home.engine_id and demand.history.is_complete)
            assert whole or situation.mode == "ppd"
        case "aggregated":
            assert made.prefill is None
            assert made.decode in view.aggregated


@given(demand=DEMANDS, situation=SETUPS)
@settings(max_examples=200, deadline=None)
def test_an_equal_demand_gets_an_equal_plan(demand, situation):
    """Equal values, not the same objects; and loads of engines that are not there change nothing."""
    copies = {name: getattr(situation, name) for name in ("mode", "trust_direct", "failed", "unreachable", "cause")}
    view = situation.fleet
    engines = [copy.copy(each) for role in (view.aggregated, view.decode, view.prefill) for each in role]
    other = Situation(fleet=fleet(*engines), loads={**situation.loads, "elsewhere:1": 5}, **copies)
    assert attempt(demand, other) == attempt(demand, situation)
