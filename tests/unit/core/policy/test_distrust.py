"""What is not trusted is not used while there is anything else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import aggregated, decode, direct_plan, fleet, pd_plan, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.policy.decide import decide
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.placement import SLACK_TOKENS
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.situation import Situation
from ppd_wire.errors import NoRoute

P1, P2, D1, D2, A1 = prefill("p1"), prefill("p2"), decode("d1"), decode("d2"), aggregated()
PP, PD = prefill("pp", handoff="p2p_nccl"), decode("pd", handoff="p2p_nccl")
ONE, FOUR = fleet(P1, D1), fleet(P1, P2, D1, D2)
FIRST = History()


def pairs(*names):
    """`"p1 d1"` and so on, as distrusted pairs, with a salt for each of their decode engines."""
    split = [tuple(f"{name}:8000" for name in pair.split()) for pair in names]
    return Distrust(pairs=frozenset(split), salts={engine: f"ppd-{engine}-1" for _, engine in split})


def known(home="d1", *, filled_by=("p1",), salt="", answers=1):
    return History(
        known_answers=answers, is_complete=True, has_answers=True,
        home=Home(
            engine_id=f"{home}:8000", incarnation=0, held_tokens=1000, salt=salt,
            filled_by=tuple(f"{name}:8000" for name in filled_by),
        ),
    )  # fmt: skip


def plan(history=FIRST, engines=FOUR, distrust=Distrust(), *, mode="ppd", demand=None, **situation):  # noqa: B008
    demand = Demand(history=history, spread_key=b"key", **(demand or {}))
    return decide(demand, Situation(mode=mode, fleet=engines, distrust=distrust, **situation))


def in_words(made):
    legs = [engine.id.split(":")[0] for engine in (made.prefill, made.decode) if engine is not None]
    return made.route, str(made.reason), *legs


ALL = pairs("p1 d1", "p1 d2", "p2 d1", "p2 d2")
SPLIT = Distrust(is_split=True, salts={"d1:8000": "s1", "d2:8000": "s2"})
DIRECT = Distrust(is_direct=True)
NEW = "ppd-d1:8000-1"
BY_SALT = Distrust(salts={"d1:8000": "new"})
P1_BAD = pairs("p1 d1", "p1 d2")
D1_BAD = pairs("p1 d1", "p2 d1")
SITUATIONS = {
    "another decode engine": (
        (FIRST, fleet(P1, D1, D2), D1_BAD), {"loads": {"d2:8000": 9}}, ("pd", "pair_distrusted", "p1", "d2"),
    ),
    "another prefill engine": ((FIRST, fleet(P1, P2, D1), P1_BAD), {}, ("pd", "pair_distrusted", "p2", "d1")),
    "in mode pd": ((known(), fleet(P1, D1, D2), D1_BAD), {"mode": "pd"}, ("pd", "pair_distrusted", "p1", "d2")),
    "the pair would not be used": ((FIRST, FOUR, D1_BAD), {"loads": {"d1:8000": 9}}, ("pd", "first_turn", "p1", "d2")),
    "a bad home": ((known(), fleet(P1, P2, D1), P1_BAD), {}, ("pd", "home_distrusted", "p2", "d1")),
    "one of two that filled it": (
        (known(filled_by=("p2", "p1"), salt=NEW), fleet(P1, P2, D1), P1_BAD), {},
        ("pd", "home_distrusted", "p2", "d1"),
    ),
    "a home another pair filled": (
        (known(filled_by=("p2",), salt=NEW), fleet(P1, P2, D1), P1_BAD), {}, ("direct", "known_history", "d1"),
    ),
    "a home nobody filled": ((known(filled_by=(), salt=NEW), ONE, P1_BAD), {}, ("direct", "known_history", "d1")),
    "a home under an older salt": ((known(filled_by=()), ONE, BY_SALT), {}, ("pd", "home_distrusted", "p1", "d1")),
    "a home under the salt": ((known(salt="new"), ONE, BY_SALT), {}, ("direct", "known_history", "d1")),
    "a home under a lost salt": ((known(salt="new"), ONE), {}, ("pd", "home_distrusted", "p1", "d1")),
    "a bad home that is gone": ((known("d9"), ONE, BY_SALT), {}, ("pd", "home_gone", "p1", "d1")),
    "direct": ((known(), ONE, DIRECT), {}, ("pd", "direct_distrusted", "p1", "d1")),
    "direct in mode pd": ((known(), ONE, DIRECT), {"mode": "pd"}, ("pd", "mode_pd", "p1", "d1")),
    "direct, first turn": ((FIRST, ONE, DIRECT), {}, ("pd", "first_turn", "p1", "d1")),
    "direct, no pair": ((known(), fleet(D1), DIRECT), {}, ("direct", "distrusted_anyway", "d1")),
    "direct, no pair, whole": ((known(), fleet(D1, A1), DIRECT), {}, ("aggregated", "direct_distrusted", "a1")),
    "a bad home, no pair": ((known(), fleet(D1), P1_BAD), {}, ("direct", "home_distrusted", "d1")),
    "a bad home, no pair, whole": ((known(), fleet(D1, A1), P1_BAD), {}, ("aggregated", "home_distrusted", "a1")),
    "all pairs, whole": ((FIRST, fleet(P1, D1, A1), ALL), {}, ("aggregated", "split_distrusted", "a1")),
    "all pairs, alone": ((FIRST, ONE, ALL), {}, ("direct", "split_distrusted", "d1")),
    "all pairs, bad home": ((known(), ONE, ALL), {}, ("direct", "split_distrusted", "d1")),
    "all pairs, good home": ((known(filled_by=(), salt=NEW), ONE, ALL), {}, ("direct", "known_history", "d1")),
    "all pairs, not safe alone": ((FIRST, fleet(PP, PD), pairs("pp pd")), {}, ("pd", "distrusted_anyway", "pp", "pd")),
    "all pairs, trusted alone": (
        (FIRST, fleet(PP, PD), pairs("pp pd")), {"trust_direct": True}, ("direct", "split_distrusted", "pd"),
    ),
    "all pairs and direct": (
        (known(filled_by=(), salt="s1"), ONE, Distrust(is_split=True, is_direct=True, salts=SPLIT.salts)), {},
        ("direct", "distrusted_anyway", "d1"),
    ),
    "split, whole": ((FIRST, fleet(P1, D1, A1), SPLIT), {}, ("aggregated", "split_distrusted", "a1")),
    "split, alone": ((FIRST, ONE, SPLIT), {}, ("direct", "split_distrusted", "d1")),
    "split, filled home": ((known(salt="s1"), ONE, SPLIT), {}, ("direct", "split_distrusted", "d1")),
    "split, nobody there": ((FIRST, fleet(P1, A1), SPLIT), {}, ("aggregated", "no_decode_engine", "a1")),
    "again after a failure": (
        (FIRST, fleet(P1, P2, D1), P1_BAD), {"cause": DecisionReason.PREFILL_FAILED, "failed": frozenset({"p2:8000"})},
        ("pd", "prefill_failed", "p2", "d1"),
    ),
    "kept KV has only bad pairs": (
        (FIRST, fleet(P1, P2, D2), P1_BAD), {"cause": DecisionReason.DECODE_FAILED, "keep": P1},
        ("direct", "split_distrusted", "d2"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given_", "situation", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_what_is_not_trusted_gives_way(given_, situation, expected):
    assert in_words(plan(*given_, **situation)) == expected


def test_an_overloaded_good_home_serves_where_no_other_pair_is_trusted():
    made = plan(known(filled_by=(), salt=NEW), fleet(P1, D1, D2), ALL, loads={"d1:8000": SLACK_TOKENS + 1})
    assert in_words(made) == ("direct", "known_history", "d1")


def test_without_any_engine_distrust_changes_no_refusal():
    for history in (FIRST, known()):
        with pytest.raises(NoRoute) as caught:
            plan(history, fleet(P1), ALL)
        assert caught.value.reason == "no_decode_engine"


@pytest.mark.parametrize("field", ["is_multi_sequence", "wants_prompt_logprobs"])
def test_requests_that_cannot_be_split_are_computed_without_a_bad_home(field):
    loads = {"d1:8000": 5}
    assert plan(known(), demand={field: True}, loads=loads).decode == D1
    assert plan(known(), FOUR, P1_BAD, demand={field: True}, loads=loads).decode == D2


def test_distrusted_kv_gets_a_salt_that_nothing_trusted_has():
    distrust = pairs("p1 d1")
    anyway = pd_plan()
    anyway = type(anyway)(**{name: getattr(anyway, name) for name in ("route", "turn", "prefill", "decode")},
                          reason=DecisionReason.DISTRUSTED_ANYWAY)  # fmt: skip
    assert distrust.salt(pd_plan()) == distrust.salt(direct_plan()) == NEW
    assert distrust.salt(pd_plan(d="d2")) == ""
    assert distrust.salt(anyway) == NEW + "-anyway"
    assert Distrust().salt(anyway) == "ppd-anyway"


ENGINES = (P1, P2, D1, D2, A1, PP, PD)
PAIRS = st.tuples(st.sampled_from([P1.id, P2.id, PP.id]), st.sampled_from([D1.id, D2.id, PD.id]))
SALTS = st.dictionaries(st.sampled_from([D1.id, D2.id, PD.id]), st.sampled_from(["s", "t"]))
DISTRUSTS = st.builds(
    Distrust, pairs=st.frozensets(PAIRS), is_direct=st.booleans(), is_split=st.booleans(), salts=SALTS
)
HOMES = st.builds(
    Home, engine_id=st.sampled_from([D1.id, D2.id, PD.id]), incarnation=st.just(0), held_tokens=st.just(100),
    filled_by=st.lists(st.sampled_from([P1.id, P2.id]), unique=True).map(tuple), salt=st.sampled_from(["", "s", "t"]),
)  # fmt: skip
HISTORIES = st.builds(
    History, known_answers=st.integers(0, 2), is_complete=st.booleans(), has_answers=st.booleans(),
    home=st.none() | HOMES,
)  # fmt: skip


@given(
    history=HISTORIES, distrust=DISTRUSTS, mode=st.sampled_from(["pd", "ppd"]), trust_direct=st.booleans(),
    engines=st.sets(st.sampled_from(ENGINES)).map(lambda engines: fleet(*engines)),
    cause=st.none() | st.sampled_from([DecisionReason.PREFILL_FAILED, DecisionReason.DECODE_FAILED]),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_distrust_is_used_only_where_it_is_said_and_refuses_nobody(
    history, distrust, mode, trust_direct, engines, cause
):
    facts = {"mode": mode, "trust_direct": trust_direct, "cause": cause}
    try:
        trusting = plan(history, engines, **facts)
    except NoRoute:
        trusting = None
    try:
        made = plan(history, engines, distrust, **facts)
    except NoRoute:
        assert trusting is None or (trusting.route == "direct" and distrust.is_home_bad(history.home))
        return
    if made.reason is DecisionReason.DISTRUSTED_ANYWAY:
        assert not engines.aggregated
        return
    if made.route == "pd":
        assert not distrust.is_pair_bad(made.prefill.id, made.decode.id)
    if made.reason is DecisionReason.KNOWN_HISTORY:
        assert not distrust.is_home_bad(history.home)
