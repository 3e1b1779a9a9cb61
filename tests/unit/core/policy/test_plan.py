from tests.support.builders import aggregated_plan, pd_plan

from ppd_core.policy.plan import MODES, DecisionReason, Demand
from ppd_wire.errors import Failure, Refusal


def test_no_word_stands_in_two_vocabularies():
    words = [str(word) for vocabulary in (DecisionReason, Refusal, Failure) for word in vocabulary]
    assert len(set(words)) == len(words)


def test_the_handoff_is_that_of_the_engine_that_answers():
    assert pd_plan(handoff="p2p_nccl").handoff == "p2p_nccl"
    assert aggregated_plan().prefill is None


def test_a_demand_that_says_nothing_is_a_first_turn_that_can_be_split():
    demand = Demand()
    assert (demand.history.turn, demand.is_split_endpoint, demand.is_multi_sequence) == (1, True, False)
    assert MODES == ("pd", "ppd")
