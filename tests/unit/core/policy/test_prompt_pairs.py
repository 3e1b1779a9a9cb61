"""Pairs whose engines render two prompts: three in a pair's last hundred, and how that ends."""

from tests.support.builders import decode, pd_plan, prefill

from ppd_core.conversation.history import Home
from ppd_core.policy.distrust import Distrust, joined
from ppd_core.policy.prompt_pairs import LIMIT, WINDOW, PromptPairs

PAIR = ("p1:8000", "d1:8000")


def pairs():
    return PromptPairs("base")


def differ(prompts, times=1, p=None, d=None):
    return [prompts.differed(p or prefill(), d or decode()) for _ in range(times)]


def agree(prompts, times=1):
    for _ in range(times):
        prompts.agreed(prefill(), decode())


def test_the_third_difference_distrusts_the_pair_and_says_so_once():
    prompts = pairs()
    assert differ(prompts, LIMIT + 1) == [False, False, True, False]
    assert prompts.distrusted == (PAIR,)
    assert prompts.distrust.is_pair_bad(*PAIR)
    assert not prompts.distrust.is_pair_bad("p2:8000", "d1:8000")


def test_only_a_pairs_last_hundred_requests_count():
    prompts = pairs()
    differ(prompts)
    agree(prompts, WINDOW - 1)
    assert prompts.differences(PAIR) == (1, WINDOW)
    differ(prompts, 2)
    assert prompts.differences(PAIR) == (2, WINDOW)  # the first one is out
    assert prompts.distrusted == ()
    agree(prompts, WINDOW - 3)
    assert differ(prompts) == [True]


def test_each_pair_has_a_record_of_its_own():
    prompts = pairs()
    differ(prompts, 2)
    differ(prompts, 2, p=prefill("p2"))
    assert prompts.distrusted == ()


def test_every_difference_gives_the_decode_engine_a_new_salt():
    """It holds KV of another prompt under the hashes of its own."""
    prompts, salts = pairs(), []
    for _ in range(4):
        differ(prompts)
        salts.append(prompts.distrust.salt(pd_plan()))
    assert len(set(salts)) == 4
    home = Home(engine_id="d1:8000", incarnation=0, held_tokens=5, salt=salts[0])
    assert prompts.distrust.is_home_bad(home)


def test_salts_of_two_processes_differ():
    first, second = PromptPairs("one"), PromptPairs("two")
    differ(first)
    differ(second)
    assert first.distrust.salts != second.distrust.salts


def test_a_new_incarnation_of_either_engine_clears_the_pair_but_not_the_salt():
    for lives in ((prefill(incarnation=1), decode()), (prefill(), decode(incarnation=1)), (prefill(),)):
        prompts = pairs()
        differ(prompts, LIMIT)
        assert prompts.refresh((prefill(), decode())) == ()
        salts = prompts.distrust.salts
        assert prompts.refresh(lives) == (PAIR,)
        assert prompts.refresh(lives) == ()
        assert prompts.distrust == Distrust(salts=salts)


def test_a_new_incarnation_begins_a_new_record():
    prompts = pairs()
    differ(prompts, 2)
    assert differ(prompts, 1, d=decode(incarnation=1)) == [False]
    assert prompts.differences(PAIR) == (1, 1)


def test_a_person_trusts_a_pair_again():
    prompts = pairs()
    differ(prompts, LIMIT)
    differ(prompts, LIMIT, p=prefill("p2"))
    assert prompts.trust(PAIR) == (PAIR,)
    assert prompts.distrusted == (("p2:8000", "d1:8000"),)
    assert prompts.trust(("no", "pair")) == ()
    assert prompts.trust(None) == (("p2:8000", "d1:8000"),)


def test_two_judges_are_joined_and_neither_takes_back_what_the_other_says():
    guard = Distrust(pairs=frozenset({PAIR}), is_direct=True, salts={"d1:8000": "ppd-a", "d2:8000": "ppd-b"})
    own = Distrust(pairs=frozenset({("p2", "d2")}), salts={"d1:8000": "ppd-c", "d3:8000": "ppd-d"})
    both = joined(guard, own)
    assert both.pairs == {PAIR, ("p2", "d2")}
    assert (both.is_direct, both.is_split) == (True, False)
    assert (both.salts["d2:8000"], both.salts["d3:8000"]) == ("ppd-b", "ppd-d")
    assert joined(Distrust(), own) == own
    assert joined(guard, Distrust()) == guard


def test_where_both_judges_gave_a_salt_it_changes_when_either_does():
    def salt(one, other):
        return joined(Distrust(salts={"d": one}), Distrust(salts={"d": other})).salts["d"]

    salts = {salt(one, other) for one in ("ppd-a", "ppd-b") for other in ("ppd-c", "ppd-d")}
    assert len(salts) == 4
    assert all(len(each) <= 40 for each in salts)
    assert not salts & {"ppd-a", "ppd-b", "ppd-c", "ppd-d"}
