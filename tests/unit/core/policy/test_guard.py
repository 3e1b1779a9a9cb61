"""What the guard does about verdicts, when it lets go again, and what it never does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_core.conversation.history import Home
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.guard import DIRECT, SPLIT, Guard, GuardSettings, JudgedScopes, pair_scope, scope_pair
from ppd_wire.requests.generation import MAX_SALT_CHARS

A, B, C = ("p1:1", "d1:1"), ("p2:1", "d1:1"), ("p1:1", "d2:1")
COOL, RETRY = 100.0, 50.0
ACT = GuardSettings(mode="act", cooldown_s=COOL, retry_s=RETRY)
FOR_GOOD = GuardSettings(mode="act", cooldown_s=COOL)


def verdicts(*red, **others):
    """`red` are pairs or scopes; others by word: `green=[A]`."""
    by_word = {"red": red, **others}
    given = [(word, scope) for word, scopes in by_word.items() for scope in scopes]
    return JudgedScopes({scope if isinstance(scope, str) else pair_scope(*scope): word for word, scope in given})


def kinds(actions):
    return [(action.kind, action.pair or action.scope) for action in actions]


@pytest.fixture
def guard():
    return Guard(ACT, epoch_base="t")


def test_a_red_pair_is_distrusted_and_its_decode_engine_gets_a_salt(guard):
    actions = guard.update(verdicts(A), [A, C], 0.0)
    assert kinds(actions) == [("distrust_pair", A)]
    assert guard.distrust == Distrust(pairs=frozenset({A}), salts={"d1:1": "ppd-d1:1-t.1"})
    assert guard.actions_in_force == actions
    assert guard.update(verdicts(A), [A, C], 1.0) == ()


def test_a_second_pair_of_an_engine_gets_it_another_salt(guard):
    guard.update(verdicts(A), [A, B, C], 0.0)
    guard.update(verdicts(A, B), [A, B, C], 1.0)
    assert guard.distrust.salts == {"d1:1": "ppd-d1:1-t.2"}


@pytest.mark.parametrize("word", ["unknown", "amber", "green"])
def test_nothing_but_red_is_acted_upon(guard, word):
    judged = verdicts(**{word: [A, B, C, DIRECT, SPLIT, "all"]})
    assert guard.update(judged, [A, B, C], 0.0) == ()
    assert guard.distrust == Distrust()


def test_red_that_blames_nobody_is_not_acted_upon(guard):
    assert guard.update(verdicts(SPLIT, "all"), [A, C], 0.0) == ()


def test_an_action_forgets_the_homes_that_its_pair_filled(guard):
    (action,) = guard.update(verdicts(A), [A, C], 0.0)

    def home(engine, *filled_by):
        return Home(engine_id=engine, incarnation=0, held_tokens=1, filled_by=filled_by)

    assert action.forgets(home("d1:1", "p2:1", "p1:1"))
    assert not action.forgets(home("d1:1", "p2:1"))
    assert not action.forgets(home("d2:1", "p1:1"))
    (lifted,) = guard.undo(None, 1.0)
    assert not lifted.forgets(home("d1:1", "p1:1"))


def test_direct_turns_are_distrusted_when_no_pair_explains_it(guard):
    assert kinds(guard.update(verdicts(DIRECT), [A, C], 0.0)) == [("distrust_direct", DIRECT)]
    assert guard.distrust == Distrust(is_direct=True)


def test_a_red_pair_explains_red_direct_turns_until_its_action_has_cooled_down(guard):
    assert kinds(guard.update(verdicts(A, DIRECT), [A, C], 0.0)) == [("distrust_pair", A)]
    assert guard.update(verdicts(DIRECT), [A, C], COOL - 1) == ()
    assert kinds(guard.update(verdicts(A, DIRECT), [A, C], COOL)) == [("distrust_direct", DIRECT)]


def test_everything_split_is_distrusted_with_its_last_pair(guard):
    guard.update(verdicts(A), [A, C], 0.0)
    assert kinds(guard.update(verdicts(C), [A, C], 1.0)) == [("distrust_pair", C), ("distrust_split", SPLIT)]
    assert guard.distrust.is_split


def test_only_pairs_that_can_be_used_count_for_everything_split(guard):
    assert kinds(guard.update(verdicts(A), [], 0.0)) == [("distrust_pair", A)]
    assert kinds(guard.update(verdicts(), [A], 1.0)) == [("distrust_split", SPLIT)]


def test_a_pair_that_shows_up_later_is_not_tried_and_its_engine_gets_a_salt(guard):
    guard.update(verdicts(A), [A], 0.0)
    assert guard.update(verdicts(), [A, C], 1.0) == ()
    assert guard.distrust.is_pair_bad(*C)
    assert guard.distrust.salts == {"d1:1": "ppd-d1:1-t.1", "d2:1": "ppd-d2:1-t.2"}


def test_probation_comes_after_the_waiting_time_and_salts_stay(guard):
    guard.update(verdicts(A), [A, C], 0.0)
    assert guard.update(verdicts(A), [A, C], COOL + RETRY - 1) == ()
    assert kinds(guard.update(verdicts(A), [A, C], COOL + RETRY)) == [("trust_pair", A)]
    assert guard.distrust == Distrust(salts={"d1:1": "ppd-d1:1-t.1"})


def test_red_on_probation_waits_twice_as_long(guard):
    wait = COOL + RETRY
    guard.update(verdicts(A), [A, C], 0.0)
    guard.update(verdicts(), [A, C], wait)
    assert kinds(guard.update(verdicts(A), [A, C], wait + 1)) == [("distrust_pair", A)]
    assert guard.distrust.salts == {"d1:1": "ppd-d1:1-t.2"}
    assert guard.update(verdicts(), [A, C], wait + 1 + 2 * wait - 1) == ()
    assert kinds(guard.update(verdicts(), [A, C], wait + 1 + 2 * wait)) == [("trust_pair", A)]


def test_green_on_probation_ends_it(guard):
    wait = COOL + RETRY
    guard.update(verdicts(A), [A, C], 0.0)
    guard.update(verdicts(), [A, C], wait)
    guard.update(verdicts(green=[A]), [A, C], wait + 1)
    guard.update(verdicts(A), [A, C], wait + 2)
    assert kinds(guard.update(verdicts(), [A, C], wait + 2 + wait)) == [("trust_pair", A)]


def test_green_lifts_nothing(guard):
    guard.update(verdicts(A), [A, C], 0.0)
    assert guard.update(verdicts(green=[A, DIRECT, SPLIT, "all"]), [A, C], COOL + RETRY - 1) == ()


def test_direct_turns_get_probation_too(guard):
    wait = COOL + RETRY
    guard.update(verdicts(DIRECT), [A], 0.0)
    assert kinds(guard.update(verdicts(), [A], wait)) == [("trust_direct", DIRECT)]
    assert kinds(guard.update(verdicts(DIRECT), [A], wait + 1)) == [("distrust_direct", DIRECT)]


def test_everything_split_is_tried_together_with_a_pair(guard):
    wait = COOL + RETRY
    guard.update(verdicts(A), [A], 0.0)
    assert kinds(guard.update(verdicts(), [A], wait)) == [("trust_pair", A), ("trust_split", SPLIT)]
    assert kinds(guard.update(verdicts(A), [A], wait + 1)) == [("distrust_pair", A), ("distrust_split", SPLIT)]


def test_no_pair_is_tried_before_everything_split_is(guard):
    guard.update(verdicts(A), [A, C], 0.0)
    guard.update(verdicts(C), [A, C], 60.0)
    assert guard.update(verdicts(), [A, C], COOL + RETRY) == ()
    lifted = kinds(guard.update(verdicts(), [A, C], 60.0 + COOL + RETRY))
    assert sorted(lifted) == [("trust_pair", A), ("trust_pair", C), ("trust_split", SPLIT)]


def test_a_new_pair_is_tried_when_everything_split_has_waited(guard):
    guard.update(verdicts(A), [A], 0.0)
    guard.update(verdicts(), [A], COOL + RETRY)
    guard.update(verdicts(A), [A], COOL + RETRY + 1)
    at = COOL + RETRY + 1 + 2 * (COOL + RETRY)
    assert ("trust_split", SPLIT) in kinds(guard.update(verdicts(), [C], at))


def test_without_a_retry_only_a_person_trusts_again():
    guard = Guard(FOR_GOOD, epoch_base="t")
    guard.update(verdicts(A, DIRECT), [A], 0.0)
    assert guard.update(verdicts(green=[A]), [A], 1e9) == ()
    assert kinds(guard.undo(None, 1e9)) == [("trust_pair", A), ("trust_split", SPLIT)]
    assert guard.distrust == Distrust(salts={"d1:1": "ppd-d1:1-t.1"})


def test_what_a_person_undid_is_left_alone_for_a_cool_down(guard):
    guard.update(verdicts(A), [A, C], 0.0)
    assert kinds(guard.undo(pair_scope(*A), 10.0)) == [("trust_pair", A)]
    assert guard.update(verdicts(A), [A, C], 10.0 + COOL - 1) == ()
    assert kinds(guard.update(verdicts(A), [A, C], 10.0 + COOL)) == [("distrust_pair", A)]


def test_a_person_who_trusts_a_pair_wants_it_used(guard):
    guard.update(verdicts(A), [A], 0.0)
    assert kinds(guard.undo(pair_scope(*A), 1.0)) == [("trust_pair", A), ("trust_split", SPLIT)]
    assert not guard.distrust.is_pair_bad(*A)


def test_undoing_what_is_not_in_force_says_what_is(guard):
    with pytest.raises(ValueError, match=r"'route:direct' given, must be one that is distrusted now: nothing"):
        guard.undo(DIRECT, 0.0)
    guard.update(verdicts(A), [A, C], 0.0)
    with pytest.raises(ValueError, match=r"distrusted now: pair:p1:1>d1:1"):
        guard.undo(DIRECT, 0.0)
    assert guard.undo(None, 1.0)
    assert guard.undo(None, 2.0) == ()


def test_alert_says_once_per_change_what_it_would_do():
    guard = Guard(GuardSettings(mode="alert"), epoch_base="t")
    assert kinds(guard.update(verdicts(A, DIRECT), [A, C], 0.0)) == [("would_act", A)]
    assert guard.update(verdicts(A, DIRECT), [A, C], 1.0) == ()
    assert kinds(guard.update(verdicts(A, C), [A, C], 2.0)) == [("would_act", C), ("would_act", SPLIT)]
    assert kinds(guard.update(verdicts(DIRECT), [A, C], 3.0)) == [("would_act", DIRECT)]
    assert kinds(guard.update(verdicts(A), [A, C], 4.0)) == [("would_act", A)]
    assert guard.distrust == Distrust()
    assert guard.actions_in_force == ()


def test_off_does_nothing():
    guard = Guard(GuardSettings(), epoch_base="t")
    assert guard.update(verdicts(A, DIRECT), [A], 0.0) == ()
    assert guard.distrust == Distrust()


def test_salts_of_long_names_leave_room_for_the_clients_own():
    guard = Guard(ACT, epoch_base="b" * 24)
    pair = ("p:1", "d" * 253 + ":8000")
    guard.update(verdicts(pair), [pair], 0.0)
    (salt,) = guard.distrust.salts.values()
    assert len(f"{salt}-anyway:") + 32 <= MAX_SALT_CHARS


@pytest.mark.parametrize("base", ["", "a/b", "a@b", "x" * 25])
def test_an_epoch_base_that_no_salt_may_hold_is_refused(base):
    with pytest.raises(ValueError, match=r"epoch_base: .* given, must be 1 to 24"):
        Guard(ACT, epoch_base=base)


@pytest.mark.parametrize("field", ["cooldown_s", "retry_s"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_times_that_are_none_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}: .* given, must be a number of seconds"):
        GuardSettings(**{field: value})


def test_scopes_of_pairs():
    assert scope_pair(pair_scope("[::1]:1", "d:2")) == ("[::1]:1", "d:2")
    assert scope_pair(DIRECT) is None
    with pytest.raises(ValueError, match=r"'pair:x' given, must be pair:PREFILL_ID>DECODE_ID"):
        scope_pair("pair:x")


# A random walk

PAIRS = [(p, d) for p in ("p1:1", "p2:1") for d in ("d1:1", "d2:1")]
SCOPES = [*(pair_scope(*pair) for pair in PAIRS), DIRECT, SPLIT, "all"]
WORDS = st.sampled_from(["green", "amber", "red", "red", "unknown"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, COOL, COOL + RETRY, 1000.0]),
        st.dictionaries(st.sampled_from(SCOPES), WORDS),
        st.sets(st.sampled_from(PAIRS)),
        st.sampled_from(["update"] * 5 + ["undo all", "undo one"]),
    ),
    max_size=40,
)


def replay(in_force, actions):
    """The scopes in force, from what the actions say alone."""
    for action in actions:
        change, _, _ = action.kind.partition("_")
        assert change in ("distrust", "trust")
        assert (action.scope in in_force) == (change == "trust")
        in_force ^= {action.scope}
    return in_force


@given(steps=STEPS, retry_s=st.sampled_from([None, RETRY, 0.0]))
@settings(max_examples=300, deadline=None)
def test_on_any_walk_salts_are_new_unknown_is_left_alone_and_distrust_equals_the_actions_in_force(steps, retry_s):
    guard = Guard(GuardSettings(mode="act", cooldown_s=COOL, retry_s=retry_s), epoch_base="t")
    now, seen, in_force, salts = 0.0, set(), set(), {}
    for wait, words, usable, what in steps:
        now += wait
        before = guard.distrust
        if what == "update":
            actions = guard.update(JudgedScopes(words), usable, now)
        else:
            first = min((action.scope for action in guard.actions_in_force), default=None)
            actions = guard.undo(None if what == "undo all" else first, now)
        in_force = replay(in_force, actions)
        distrust = guard.distrust
        assert in_force == {action.scope for action in guard.actions_in_force}
        assert distrust.pairs == {scope_pair(scope) for scope in in_force} - {None}
        assert (distrust.is_direct, distrust.is_split) == (DIRECT in in_force, SPLIT in in_force)
        for action in actions:
            if action.kind in ("distrust_pair", "distrust_direct"):
                assert words[action.scope] == "red"
            if action.kind == "distrust_split":
                assert usable
                assert usable <= distrust.pairs
            if action.kind == "distrust_pair":
                assert distrust.salts[action.pair[1]] != before.salts.get(action.pair[1])
        changed = {engine: salt for engine, salt in distrust.salts.items() if salts.get(engine) != salt}
        assert not seen & set(changed.values())
        assert len(set(distrust.salts.values())) == len(distrust.salts)
        assert set(salts) <= set(distrust.salts)
        seen |= set(changed.values())
        salts = distrust.salts
        assert {decode_id for _, decode_id in distrust.pairs} <= set(salts)
