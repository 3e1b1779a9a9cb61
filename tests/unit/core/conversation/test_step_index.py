"""A table from steps to numbers."""

from hypothesis import given
from hypothesis import strategies as st

from ppd_core.conversation.step_index import ABSENT, StepIndex

STEPS = st.integers(0, 40).map(lambda number: number.to_bytes(16, "little"))


class Records:
    """Which record has which steps, and the index of them."""

    def __init__(self, most=1):
        self.numbers = {}
        self.index = StepIndex(most, bytearray(), lambda number, step: self.numbers.get(step) == number)


@given(st.lists(st.tuples(st.sampled_from(["add", "drop"]), STEPS, st.integers(0, 2**31 - 1))))
def test_it_knows_what_a_dict_knows(actions):
    records = Records()
    for action, step, number in actions:
        is_there = step in records.numbers
        if action == "add" and not is_there:
            records.index.add(step, number)
            records.numbers[step] = number
        elif action == "drop" and is_there:
            records.index.drop(step)
            del records.numbers[step]
    assert records.index.count == len(records.numbers)
    for at in range(41):
        step = at.to_bytes(16, "little")
        assert records.index.get(step) == records.numbers.get(step, ABSENT)


def test_thousands_in_a_bucket_are_told_apart():
    records = Records()
    steps = [number.to_bytes(16, "big") for number in range(20_000)]
    for number, step in enumerate(steps):
        records.numbers[step] = number
        records.index.add(step, number)
    assert [records.index.get(step) for step in steps] == list(range(20_000))
    assert records.index.get(b"x" * 16) == ABSENT


def test_what_was_emptied_comes_back_to_be_freed():
    records = Records()
    records.index.add(b"x" * 16, 7)
    records.numbers[b"x" * 16] = 7
    retired = records.index.retire()
    assert sum(len(bucket) for bucket in retired if bucket) == 10
    assert (records.index.count, records.index.get(b"x" * 16)) == (0, ABSENT)
