"""What judges say of engines is joined, and pairs are trusted again."""

from tests.support.builders import decode, direct_plan, prefill

from ppd_core.policy.distrust import Distrust
from ppd_core.policy.prompt_pairs import LIMIT, PromptPairs
from ppd_proxy.control import Control

PAIR = ("p1:8000", "d1:8000")


def distrusting():
    control = Control("ppd", PromptPairs("base"))
    assert [control.prompts_differed(prefill(), decode()) for _ in range(LIMIT)] == [False] * (LIMIT - 1) + [True]
    return control


def test_what_both_judges_distrust_is_joined():
    control = distrusting()
    control.guard(Distrust(is_direct=True))
    assert (control.distrust.is_direct, control.distrust.pairs) == (True, {PAIR})
    control.guard(Distrust())
    assert (control.distrust.is_direct, control.distrust.pairs) == (False, {PAIR})


def test_every_difference_gives_the_decode_engine_another_salt():
    control = distrusting()
    before = control.distrust.salt(direct_plan())
    control.prompts_differed(prefill(), decode())
    assert before
    assert control.distrust.salt(direct_plan()) not in ("", before)


def test_a_pair_is_trusted_again_when_a_person_says_so_or_an_engine_began_anew():
    control = distrusting()
    assert control.trust_prompts(None) == (PAIR,)
    assert not control.distrust.pairs
    control = distrusting()
    assert control.refresh_prompts([prefill(), decode()]) == ()
    assert control.refresh_prompts([prefill(incarnation=1), decode()]) == (PAIR,)
    assert not control.distrust.pairs
