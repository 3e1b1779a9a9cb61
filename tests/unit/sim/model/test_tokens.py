import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_sim.model.tokens import EOS_ID, VOCAB_SIZE, Tokenizer, word_id


@given(st.text())
def test_decoding_gives_the_text_back(text):
    tokenizer = Tokenizer()
    token_ids = tokenizer.encode(text)
    assert tokenizer.decode(token_ids) == text
    assert all(0 <= token_id < VOCAB_SIZE for token_id in token_ids)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello world", ["Hell", "o", " worl", "d"]),
        (" the 1234", [" the", " 123", "4"]),
        ("<|end|><|foo|>", ["<|end|>", "<", "|", "foo", "|", ">"]),
        ("  a", [" ", " a"]),
    ],
)
def test_pieces_are_as_documented(text, pieces):
    tokenizer = Tokenizer()
    assert [tokenizer.decode((token_id,)) for token_id in tokenizer.encode(text)] == pieces


def test_english_comes_to_about_four_characters_per_token():
    text = "The first turn of a conversation goes to a prefill engine and then to a decode engine. " * 10
    assert 3.0 < len(text) / len(Tokenizer().encode(text)) < 5.0


def test_special_tokens_can_be_left_out():
    tokenizer = Tokenizer()
    assert tokenizer.decode([word_id("Bye"), EOS_ID], skip_special=True) == "Bye"
    assert tokenizer.decode([word_id("Bye"), EOS_ID]) == "Bye<|end|>"


def test_remembered_pieces_are_bounded_without_changing_the_answer():
    small, large = Tokenizer(remembered_pieces=3), Tokenizer()
    for text in ("one two three four five", "six seven", "one two"):
        assert small.encode(text) == large.encode(text)
        assert small.decode(small.encode(text)) == text


def test_surrogates_and_unknown_ids_do_not_break_decoding():
    tokenizer = Tokenizer()
    assert tokenizer.decode([VOCAB_SIZE - 1]) == ""
    assert "�" in tokenizer.decode([0xE2])
