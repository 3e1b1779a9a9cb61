import pytest

from ppd_acc.data.report import Flip, Sample, Side
from ppd_acc.page.differences import Cut, around, first_difference_of


def told(one, other, *, position=0, unit="tokens", flip=None, **sides):
    return Sample(
        sample_id="s", status="real", unit=unit, flip=flip or Flip(position=position),
        baseline=Side(text=one, tokens=sides.get("ones", [])), target=Side(text=other, tokens=sides.get("others", [])),
    )  # fmt: skip


def parts(cut):
    return cut.before, cut.differing, cut.after


def test_equal_answers_have_no_mark():
    assert first_difference_of(Sample(sample_id="s", status="equal")) is None


def test_tokens_that_are_texts_are_marked_whole():
    found = first_difference_of(
        told("I saw a carpet.", "I saw a cartoon.", position=3,
             ones=["I", " saw", " a", " carpet", "."], others=["I", " saw", " a", " cart", "oon", "."])
    )  # fmt: skip
    assert found.by == "token"
    assert parts(found.baseline) == ("I saw a", " carpet", ".")
    assert parts(found.target) == ("I saw a", " cart", "oon.")


def test_a_report_that_tells_the_tokens_text_marks_it_whole_though_it_begins_before_the_first_different_character():
    flip = Flip(position=3, baseline_text=" carpet", target_text=" cart")
    found = first_difference_of(told("I saw a carpet.", "I saw a cartoon.", flip=flip, ones=[1, 2, 3, 4]))
    assert found.by == "token"
    assert parts(found.baseline) == ("I saw a", " carpet", ".")
    assert parts(found.target) == ("I saw a", " cart", "oon.")


def test_ids_alone_are_marked_by_characters_and_said_to_be():
    found = first_difference_of(told("a sky is blue", "a sky was blue", position=2, ones=[1, 2, 3], others=[1, 2, 4]))
    assert found.by == "characters"
    assert parts(found.baseline) == ("a sky ", "is", " blue")
    assert parts(found.target) == ("a sky ", "was", " blue")


def test_words_are_marked_by_their_number_and_white_space_is_kept():
    found = first_difference_of(told("so  it is", "so  it was\n", position=2, unit="words"))
    assert found.by == "word"
    assert parts(found.baseline) == ("so  it ", "is", "")
    assert parts(found.target) == ("so  it ", "was", "\n")


@pytest.mark.parametrize(("unit", "tokens"), [("words", []), ("tokens", [1, 2])])
def test_an_answer_that_ends_early_is_marked_as_ended(unit, tokens):
    found = first_difference_of(told("so it", "so it is", position=2, unit=unit, ones=tokens))
    assert found.baseline.is_ended
    assert not found.target.is_ended
    assert found.target.differing.strip() == "is"


def test_texts_told_wrongly_fall_back_to_characters():
    flip = Flip(position=1, baseline_text="nowhere", target_text="either")
    assert first_difference_of(told("ab", "ac", flip=flip)).by == "characters"


def test_long_texts_are_cut_around_the_difference():
    cut, before, after = around(Cut(before="b" * 100, differing="x", after="a" * 50), 20)
    assert parts(cut) == ("b" * 20, "x", "a" * 20)
    assert (before, after) == (80, 30)


def test_a_text_that_was_not_kept_is_not_taken_for_one_that_ended():
    assert first_difference_of(told("", "so it is", position=1, ones=[1, 2], others=[1, 3])) is None
