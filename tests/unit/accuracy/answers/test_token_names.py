"""Names of tokens: what they tell apart, and where they leave doubt."""

import pytest

from ppd_accuracy.answers.token_names import have_other_bytes, is_within, name_of, sure_tokens

HALF = "\ufffd"


@pytest.mark.parametrize(
    ("name", "told", "expected"),
    [
        (" the", b" the", " the"),
        ("\u0120the", b" the", " the"),
        (HALF, b"\xe4\xbd", "bytes:\\xe4\\xbd"),
        ("", b"\xa0", "bytes:\\xa0"),
        (HALF, HALF.encode(), HALF),  # its bytes are those of its name: they tell nothing
        (HALF, None, HALF),
        ("</s>", b"", "</s>"),
    ],
)
def test_bytes_are_the_name_where_they_are_told(name: str, told: bytes | None, expected: str) -> None:
    assert name_of(name, told) == expected


def test_other_pieces_of_the_same_bytes_are_no_difference() -> None:
    one = ["a", "bytes:\\xe4", "bytes:\\xbd\\xa0"]
    assert not have_other_bytes(one, ["a", "bytes:\\xe4\\xbd", "bytes:\\xa0"])
    assert have_other_bytes(one, ["a", "bytes:\\xe4", "bytes:\\xbd\\xa1"])
    assert not have_other_bytes(["a", "bytes:\\xe4"], ["a", HALF])  # nobody knows
    assert not have_other_bytes([" the"], ["\u0120the"])


def test_tokens_are_sure_up_to_the_first_that_others_may_be_called_like() -> None:
    assert sure_tokens(["a", "b", HALF, "c"], "abéc", 4) == 2
    assert sure_tokens(["ab", "cd"], "abcd", 3) == 1
    assert sure_tokens(["x", "y"], "abcd", 4) == 0
    assert sure_tokens(["a", "", "b"], "ab", 2) == 1


@pytest.mark.parametrize(
    ("names", "text", "shared", "expected"),
    [
        (["a", "b"], "ab", 0, True),  # names without doubt are trusted
        ([HALF, HALF, HALF, "x"], "\u4f60xy", 2, True),
        ([HALF, HALF, HALF, "x"], "\u4f60xy", 0, False),
        ([HALF, HALF, HALF], "\u4f60\u597d", 1, False),  # one character, or up to three
        ([HALF + "x"], "\u4f60xx", 3, True),
        (["", "b"], "aabb", 2, False),
        ([HALF, "q"], "\u4f60x", 2, False),  # the names do not spell the text
        ([HALF] * 5000, "\u4f60" * 5000, 5000, False),  # too many ways to read them
    ],
)
def test_where_tokens_end_is_known_where_the_text_says_so(
    names: list[str], text: str, shared: int, expected: bool
) -> None:
    assert is_within(names, len(names), text, shared) is expected


@pytest.mark.parametrize(
    ("rest", "text", "expected"),
    [
        (["b"], "\u4f60b", True),
        (["b"], "\u4f60bb", False),
        (["b", "</s>"], "\u4f60b", False),
        ([HALF], "\u4f60b", False),
    ],
)
def test_what_follows_helps_to_tell_where_tokens_end(rest: list[str], text: str, expected: bool) -> None:
    names = [HALF, HALF, HALF]
    assert is_within([*names, *rest], len(names), text, 1) is expected
