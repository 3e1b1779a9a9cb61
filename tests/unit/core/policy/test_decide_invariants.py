"""What holds of every decision, whatever the fleet, the loads, the failures and the distrust."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import aggregated, decode, fleet, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.fleet.engine import FleetView
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.decide import decide
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.placement import SLACK_TOKENS, find_home
from ppd_core.policy.plan import DecisionReason as Why
from ppd_core.policy.plan import Demand
from ppd_core.policy.situation import Situation
from ppd_wire.errors import NoRoute

ENGINES = (
    prefill("p1"), prefill("p2"), prefill("pp", handoff="p2p_nccl"),
    decode("d1"), decode("d2"), decode("pd", handoff="p2p_nccl"), decode("ppd", handoff="p2p_nccl", is_ppd=True),
    aggregated("a1"), aggregated("a2"),
)  # fmt: skip
IDS = {role: [each.id for each in ENGINES if each.role == role] for role in ("prefill", "decode", "aggregated")}
SOME = st.frozensets(st.sampled_from([each.id for each in ENGINES]), max_size=4)
PAIRS = st.frozensets(st.tuples(st.sampled_from(IDS["prefill"]), st.sampled_from(IDS["decode"])), max_size=6)
HOMES = st.builds(
    Home, engine_id=st.sampled_from([*IDS["decode"], "gone:8000"]), incarnation=st.sampled_from([0, 0, 0, 1]),
    held_tokens=st.sampled_from([0, 20_000]), salt=st.sampled_from(["", "", "s"]),
    filled_by=st.lists(st.sampled_from(IDS["prefill"]), unique=True, max_size=2).map(tuple),
)  # fmt: skip
DEMANDS = st.builds(
    Demand, spread_key=st.binary(max_size=2), is_multi_sequence=st.sampled_from([False, False, False, True]),
    history=st.builds(
        History, known_answers=st.integers(0, 2), is_complete=st.sampled_from([True, True, False]),
        has_answers=st.booleans(), home=st.none() | HOMES,
    ),
)  # fmt: skip
DISTRUSTS = st.builds(
    Distrust, pairs=PAIRS, is_direct=st.booleans(), is_split=st.booleans(),
    salts=st.dictionaries(st.sampled_from(IDS["decode"]), st.sampled_from("st"), max_size=2),
)  # fmt: skip
SITUATIONS = st.builds(
    Situation,
    mode=st.sampled_from(["pd", "ppd"]),
    fleet=st.sets(st.sampled_from(ENGINES)).map(lambda engines: fleet(*engines)),
    loads=st.dictionaries(st.sampled_from([each.id for each in ENGINES]), st.integers(0, 60_000)),
    trust_direct=st.booleans(),
    failed=SOME, unreachable=SOME, shunned=SOME, trials=SOME,
    cause=st.none() | st.sampled_from([Why.PREFILL_FAILED, Why.DECODE_FAILED]),
    keep=st.none() | st.sampled_from([each for each in ENGINES if each.role == "prefill"]),
    tried_pairs=PAIRS,
    may_repeat=st.booleans(),
    distrust=st.just(Distrust()) | DISTRUSTS,
)  # fmt: skip


def attempt(demand, situation):
    try:
        return decide(demand, situation)
    except NoRoute as error:
        return error.reason, error.message


def changed(situation, **facts):
    kept = {name: getattr(situation, name) for name in Situation.__struct_fields__}
    return Situation(**{**kept, **facts})


@given(demand=DEMANDS, situation=SITUATIONS)
@settings(max_examples=200, deadline=None)
def test_the_order_of_the_fleet_changes_nothing(demand, situation):
    view = situation.fleet
    turned = FleetView(**{role: getattr(view, role)[::-1] for role in ("prefill", "decode", "aggregated")})
    assert attempt(demand, changed(situation, fleet=turned)) == attempt(demand, situation)


@given(demand=DEMANDS, situation=SITUATIONS)
@settings(max_examples=200, deadline=None)
def test_every_engine_of_a_plan_can_be_reached_in_its_role(demand, situation):
    plan = attempt(demand, situation)
    if isinstance(plan, tuple):
        return
    view = situation.fleet
    assert plan.decode in (view.aggregated if plan.route == "aggregated" else view.decode)
    assert plan.decode.id not in situation.unreachable
    assert (plan.prefill is not None) == (plan.route == "pd")
    if plan.prefill is not None and plan.prefill is not situation.keep:
        assert plan.prefill in view.prefill
        assert plan.prefill.id not in situation.unreachable


def has_pair(situation):
    prefills = [situation.keep] if situation.keep is not None else situation.reachable(situation.fleet.prefill)
    decodes = situation.reachable(situation.fleet.decode)
    return any(HANDOFFS[d.handoff].can_pair(p, d) for p in prefills for d in decodes)


def worn(situation):
    return situation.failed | situation.shunned


def doubted(demand, situation):
    home = demand.history.home
    return bool(situation.distrust.pairs) or situation.distrust.is_split or (
        home is not None and situation.distrust.is_home_bad(home)
    )  # fmt: skip


ANY = ("pd", "direct", "aggregated")
REASONS = {
    Why.FIRST_TURN: (("pd",), lambda d, s: not d.history.is_complete and not d.history.has_answers),
    Why.HISTORY_UNKNOWN: (("pd",), lambda d, s: not d.history.is_complete and d.history.has_answers),
    Why.MODE_PD: (("pd",), lambda d, s: s.mode == "pd"),
    Why.KNOWN_HISTORY: (("direct",), lambda d, s: d.history.is_complete and s.mode == "ppd"),
    Why.HOME_GONE: (("pd",), lambda d, s: find_home(d.history.home, s.reachable(s.fleet.decode)) is None),
    Why.HOME_DISTRUSTED: (ANY, lambda d, s: s.distrust.is_home_bad(d.history.home)),
    Why.DIRECT_DISTRUSTED: (ANY, lambda d, s: s.distrust.is_direct),
    Why.HANDOFF_NOT_DIRECT_SAFE: (("pd",), lambda d, s: not s.trust_direct),
    Why.HOME_UNHEALTHY: (ANY, lambda d, s: d.history.home.engine_id in worn(s)),
    Why.HOME_OVERLOADED: (("pd",), lambda d, s: s.loads[d.history.home.engine_id] > SLACK_TOKENS),
    Why.PAIR_DISTRUSTED: (("pd",), lambda d, s: s.distrust.pairs),
    Why.SPLIT_DISTRUSTED: (("direct", "aggregated"), doubted),
    Why.DISTRUSTED_ANYWAY: (("pd", "direct"), lambda d, s: s.distrust.is_direct or doubted(d, s)),
    Why.MULTI_SEQUENCE: (("direct", "aggregated"), lambda d, s: d.is_multi_sequence),
    Why.NO_PREFILL_ENGINE: (("aggregated",), lambda d, s: worn(s) or not s.reachable(s.fleet.prefill)),
    Why.NO_DECODE_ENGINE: (("aggregated",), lambda d, s: worn(s) or not s.reachable(s.fleet.decode)),
    Why.NO_MATCHING_PAIR: (("aggregated",), lambda d, s: not has_pair(s)),
    Why.PREFILL_FAILED: (ANY, lambda d, s: s.cause is Why.PREFILL_FAILED),
    Why.DECODE_FAILED: (ANY, lambda d, s: s.cause is Why.DECODE_FAILED),
}


@given(demand=DEMANDS, situation=SITUATIONS)
@settings(max_examples=400, deadline=None)
def test_a_reason_is_given_on_its_routes_and_only_where_it_holds(demand, situation):
    plan = attempt(demand, situation)
    if isinstance(plan, tuple):
        return
    routes, holds = REASONS[plan.reason]
    assert plan.route in routes
    assert holds(demand, situation)


@given(demand=DEMANDS, situation=SITUATIONS)
@settings(max_examples=200, deadline=None)
def test_a_distrusted_pair_is_only_used_where_trust_left_nothing(demand, situation):
    plan = attempt(demand, situation)
    if isinstance(plan, tuple) or plan.route != "pd":
        return
    if situation.distrust.is_pair_bad(plan.prefill.id, plan.decode.id):
        assert plan.reason is Why.DISTRUSTED_ANYWAY
        assert not situation.reachable(situation.fleet.aggregated)
