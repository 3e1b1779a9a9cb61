"""Texts that count as equal: by the rules that were asked for, and by nothing else."""

import pytest

from ppd_acc.compare.normalizing import Matching


@pytest.mark.parametrize(
    ("rules", "one", "other", "is_same"),
    [
        ({}, "a b", "a  b", False),
        ({"has_whitespace": True}, " a \n b", "a b ", True),
        ({"has_whitespace": True}, "ab", "a b", False),
        ({"has_case": True}, "STRASSE", "straße", True),
        ({"has_case": True}, "a b", "A  b", False),
        ({"numeric_tolerance": 0.01}, "it is 1,000.001 m", "it is 1000 m", True),
        ({"numeric_tolerance": 0.01}, "it is 1.02", "it is 1.0", False),
        ({"numeric_tolerance": 0.01}, "it is 1", "it was 1", False),
        ({"numeric_tolerance": 0.01}, "1 2", "1", False),
        ({"numeric_tolerance": 1e9}, "1e999", "2e999", False),
        ({"normalizers": ("strip_thinking_tags",)}, "<think>a\nb</think>x", "<think>c</think>x", True),
        ({"normalizers": ("normalize_json",)}, '```json\n{"a": 1, "b": 2}\n```', '{"b":2,"a":1}', True),
        ({"normalizers": ("normalize_json",)}, '{"a": 1}', '{"a": 2}', False),
        ({"normalizers": ("normalize_numbers",)}, "1,000 and 2.50", "1000.0 and 2.5", True),
    ],
)
def test_rules(rules, one, other, is_same):
    assert Matching(**rules).is_same(one, other) is is_same
    assert Matching(**rules).is_same(other, one) is is_same


def test_rules_are_named_as_the_flags():
    rules = Matching(has_whitespace=True, numeric_tolerance=0.5, normalizers=("normalize_json",))
    assert rules.names == ("normalize-whitespace", "numeric-tolerance 0.5", "normalize_json")
    assert Matching().names == ()
