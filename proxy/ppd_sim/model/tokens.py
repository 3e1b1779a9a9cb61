"""The simulated tokenizer: text to token ids and back, by arithmetic instead of a vocabulary table.

A token is an optional space, an optional capital and up to three or four small letters, or an optional space and up
to three digits, or one byte, or a special token. Every id is reversible, ordinary English comes to about four
characters per token, and the text of a generated answer encodes back to the ids that were generated, which is what
lets a later turn find its own history in the prefix cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import Final

EOS_ID: Final = 256
SPECIALS: Final = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|image|>")
WORD_BASE: Final = 1_024
DIGIT_BASE: Final = 2_000_000
IMAGE_BASE: Final = 2_100_000
IMAGE_IDS: Final = 65_536
VOCAB_SIZE: Final = IMAGE_BASE + IMAGE_IDS

_PIECE = re.compile(r"<\|[a-z]+\|>| ?[A-Za-z][a-z]{0,3}| ?[0-9]{1,3}|[\x00-\x7f]|[^\x00-\x7f]+")
_LETTERS: Final = 26
_SPANS: Final = (0, 26, 702, 18_278, 475_254)  # how many words are shorter than 1, 2, 3, 4, 5 letters
_WORDS_PER_FORM: Final = _SPANS[4]
_DIGIT_SPANS: Final = (0, 10, 110, 1_110)


def _word_index(letters: str) -> int:
    value = 0
    for letter in letters:
        value = value * _LETTERS + ord(letter) - 97
    return _SPANS[len(letters) - 1] + value


def _word_letters(index: int) -> str:
    size = max(length for length in range(1, 5) if _SPANS[length - 1] <= index)
    value = index - _SPANS[size - 1]
    letters = ""
    for _ in range(size):
        value, letter = divmod(value, _LETTERS)
        letters = chr(97 + letter) + letters
    return letters


def word_id(word: str) -> int:
    """The id of one word of one to four letters, with its leading space and capital if it has them."""
    has_space = word.startswith(" ")
    letters = word[1:] if has_space else word
    has_capital = letters[0].isupper()
    return WORD_BASE + (has_space + 2 * has_capital) * _WORDS_PER_FORM + _word_index(letters.lower())


def _piece_ids(piece: str) -> tuple[int, ...]:
    if piece in SPECIALS:
        return (EOS_ID + SPECIALS.index(piece),)
    bare = piece[1:] if piece[0] == " " and len(piece) > 1 else piece
    if bare.isascii() and bare.isalpha():
        return (word_id(piece),)
    if bare.isascii() and bare.isdigit():
        has_space = bare != piece
        return (DIGIT_BASE + has_space * _DIGIT_SPANS[3] + _DIGIT_SPANS[len(bare) - 1] + int(bare),)
    return tuple(piece.encode("utf-8", "surrogatepass"))


def _token_bytes(token_id: int) -> bytes:
    if 0 <= token_id < EOS_ID:
        return bytes((token_id,))
    if token_id < EOS_ID + len(SPECIALS):
        return SPECIALS[token_id - EOS_ID].encode()
    if WORD_BASE <= token_id < WORD_BASE + 4 * _WORDS_PER_FORM:
        form, index = divmod(token_id - WORD_BASE, _WORDS_PER_FORM)
        letters = _word_letters(index)
        if form & 2:
            letters = letters[0].upper() + letters[1:]
        return ((" " if form & 1 else "") + letters).encode()
    if DIGIT_BASE <= token_id < DIGIT_BASE + 2 * _DIGIT_SPANS[3]:
        has_space, index = divmod(token_id - DIGIT_BASE, _DIGIT_SPANS[3])
        size = max(length for length in range(1, 4) if _DIGIT_SPANS[length - 1] <= index)
        return (" " * has_space + str(index - _DIGIT_SPANS[size - 1]).zfill(size)).encode()
    return b""


class Tokenizer:
    """Encodes and decodes; remembers the pieces it has seen, up to a bound, because prompts repeat themselves."""

    def __init__(self, *, remembered_pieces: int = 50_000) -> None:
        self._ids: dict[str, tuple[int, ...]] = {}
        self._bytes: dict[int, bytes] = {}
        self._remembered_pieces = remembered_pieces

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written out in it become special tokens, as in the usual tokenizers."""
        if len(self._ids) > self._remembered_pieces:
            self._ids.clear()
        known = self._ids
        pieces = _PIECE.findall(text)
        for piece in set(pieces).difference(known):
            known[piece] = self._encode_piece(piece)
        return list(chain.from_iterable(map(known.__getitem__, pieces)))

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        if piece.startswith("<|") and piece not in SPECIALS:
            return (ord("<"), ord("|"), *self.encode(piece[2:-2]), ord("|"), ord(">"))
        return _piece_ids(piece)

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for; ids that stand for nothing (image placeholders, out of range) are empty."""
        known = self._bytes.get(token_id)
        if known is None:
            if len(self._bytes) > self._remembered_pieces:
                self._bytes.clear()
            known = self._bytes[token_id] = _token_bytes(token_id)
        return known

    def text_bytes(self, token_id: int) -> bytes:
        """As `token_bytes`, but nothing for special tokens."""
        return b"" if EOS_ID <= token_id < EOS_ID + len(SPECIALS) else self.token_bytes(token_id)

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of the tokens; broken UTF-8 becomes the replacement character."""
        shown = self.text_bytes if skip_special else self.token_bytes
        return b"".join(map(shown, token_ids)).decode("utf-8", "replace")
