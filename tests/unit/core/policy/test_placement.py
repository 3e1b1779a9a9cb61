"""Which engine of a role."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import decode

from ppd_core.conversation.history import Home
from ppd_core.policy.placement import find_home, is_overloaded, load_score

ENGINES = tuple(decode(f"d{number}") for number in range(5))


def placed(loads=None, key=b"k", avoid=(), engines=ENGINES):
    loads = {f"{name}:8000": tokens for name, tokens in (loads or {}).items()}
    chosen = min(engines, key=load_score(loads, key, frozenset(f"{name}:8000" for name in avoid)), default=None)
    return chosen and chosen.id.split(":")[0]


def test_the_engine_with_the_fewest_tokens_is_taken():
    assert placed({"d0": 5, "d1": 4, "d2": 3, "d3": 2, "d4": 6}) == "d3"
    assert placed({"d0": 5, "d1": 4, "d2": 3, "d4": 6}) == "d3"


def test_avoided_engines_come_last_whatever_their_load():
    busy = dict.fromkeys(["d0", "d1", "d2", "d3"], 10**9)
    assert placed(busy, avoid=["d4"]) != "d4"
    assert placed({"d1": 1}, avoid=["d0", "d1", "d2", "d3", "d4"]) != "d1"


def test_no_engine_gives_none():
    assert placed(engines=()) is None


def test_conversations_spread_over_idle_engines():
    counts = Counter(placed(key=b"conversation %d" % number) for number in range(2000))
    assert len(counts) == 5
    assert min(counts.values()) > 320
    assert max(counts.values()) < 480


def test_equal_starts_of_conversations_meet_on_one_engine():
    assert {placed(key=b"same") for _ in range(20)} == {placed(key=b"same")}


def test_losing_an_engine_moves_only_what_it_had():
    keys = [b"conversation %d" % number for number in range(300)]
    before = {key: placed(key=key) for key in keys}
    after = {key: placed(key=key, engines=ENGINES[:-1]) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != "d4")


@given(order=st.permutations(ENGINES), loads=st.lists(st.integers(0, 3), min_size=5, max_size=5), key=st.binary())
def test_the_order_of_engines_does_not_matter(order, loads, key):
    tokens = {engine.id: load for engine, load in zip(ENGINES, loads, strict=True)}
    score = load_score(tokens, key)
    assert min(order, key=score) == min(ENGINES, key=score)


def test_a_home_is_an_engine_and_its_incarnation():
    engines = (decode("d1", incarnation=2), decode("d2"))
    home = Home(engine_id="d1:8000", incarnation=2, held_tokens=1)
    assert find_home(home, engines) == engines[0]
    assert find_home(Home(engine_id="d1:8000", incarnation=1, held_tokens=1), engines) is None
    assert find_home(Home(engine_id="d3:8000", incarnation=0, held_tokens=1), engines) is None
    assert find_home(None, engines) is None


def test_an_engine_without_others_is_never_overloaded():
    assert not is_overloaded(ENGINES[0], 0, ENGINES[:1], {ENGINES[0].id: 10**9})


def test_an_engine_is_overloaded_against_the_least_loaded_other():
    loads = {ENGINES[0].id: 100_000, ENGINES[1].id: 10_000, ENGINES[2].id: 90_000}
    assert is_overloaded(ENGINES[0], 0, ENGINES[:3], loads)
    assert not is_overloaded(ENGINES[0], 90_000, ENGINES[:3], loads)
    assert not is_overloaded(ENGINES[0], 0, (ENGINES[0], ENGINES[2]), loads | {ENGINES[0].id: 100_000})
