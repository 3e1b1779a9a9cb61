"""Ours beside uvicorn, byte by byte: the same bytes of clients, cut wherever they can be cut, lead to the same requests
and the same answers. Where they do not, EXCEPTIONS say what ours does instead, and why."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from tests.support.byte_cases import CASES
from tests.support.byte_play import cuts, ours, play, uvicorns

EXCEPTIONS: Mapping[str, tuple[list[int], bool, str]] = MappingProxyType({
    "a URL without a path": ([200], False, "RFC 9112 reads it as '/'; httptools finds no path in it"),
    "a method that nobody knows": ([200], False, "any token is a method; whether it is served, the application says"),
    "a method in lower case": ([200], False, "methods have cases, so this is another one that nobody knows"),
    "HTTP/1.2": ([200], False, "a higher minor version promises to be understood as HTTP/1.1; llhttp knows none"),
    "HTTP/2.0": ([505], True, "uvicorn serves it as if it were HTTP/1.1"),
    "HTTP/2's preface": ([505], True, "it is told which versions are spoken, not only that it is wrong"),
    "CONNECT": ([405], True, "it is told that this is no forward proxy, not only that it is wrong"),
    "a body that is longer than it says": ([200, 400], True, "whole requests are answered before what follows is read"),
    "something after a request": ([200, 400], True, "uvicorn's refusal stands where the answer to the first should"),
    "chunks with a trailer": ([200, 200], False, "uvicorn hands trailers over as headers: they could name another key"),
    "an offer to upgrade with a body": ([200], False, "uvicorn takes the body for another protocol and drops it"),
    "an offer to upgrade, and another request": ([200, 200], False, "uvicorn drops what comes with such an offer"),
    "an expectation of HTTP/1.0": ([200], True, "HTTP/1.0 has no 100: its clients would take it for the answer"),
    "HTTP/1.0 and no length": ([200], True, "HTTP/1.0 has no chunks: its clients would take their lines for text"),
    "no version": ([400], True, "HTTP/0.9 has no status and no fields to answer with"),
    "two spaces before the target": ([400], True, "one reading of the first line, or none"),
    "no host": ([400], True, "RFC 9112 asks for it"),
    "two hosts": ([400], True, "it would depend on the reader which of them counts"),
    "two codings": ([400], True, "uvicorn takes off the chunks and hands the rest over as if nothing had coded it"),
    "a coding of HTTP/1.0": ([400], True, "whoever stands before the proxy reads another end into it"),
    "a head that is too large": ([431], True, "uvicorn has no bound"),
    "a target that is too large": ([414], True, "uvicorn has no bound"),
})  # fmt: skip
"""Statuses, whether the connection ends, and why it is not as with uvicorn."""

SAME = [name for name in CASES if name not in EXCEPTIONS]


@pytest.mark.parametrize("name", SAME)
async def test_the_same_requests_and_the_same_answers_as_with_uvicorn_wherever_it_is_cut(name):
    at_once = await play(ours, [CASES[name]])
    for pieces in cuts(CASES[name]):
        assert await play(ours, pieces) == at_once == await play(uvicorns, pieces), pieces


@pytest.mark.parametrize("name", EXCEPTIONS)
async def test_an_exception_is_as_the_table_says_wherever_it_is_cut_and_is_one(name):
    statuses, is_ended, _ = EXCEPTIONS[name]
    at_once = await play(ours, [CASES[name]])
    assert (at_once.statuses, at_once.is_ended) == (statuses, is_ended)
    others = []
    for pieces in cuts(CASES[name]):
        assert await play(ours, pieces) == at_once, pieces
        others.append(await play(uvicorns, pieces))
    assert any(each != at_once for each in others)


@pytest.mark.parametrize("name", SAME)
async def test_a_client_that_sends_no_more_with_its_last_byte_is_gone_as_with_uvicorn(name):
    mine, theirs = [await play(serve, [CASES[name]], half_closes=True) for serve in (ours, uvicorns)]
    assert (mine.answers, mine.refusal, mine.is_ended) == (theirs.answers, theirs.refusal, theirs.is_ended)


@pytest.mark.parametrize("name", CASES)
async def test_a_client_that_sends_no_more_keeps_what_was_answered_before(name):
    before, after = [await play(ours, [CASES[name], *more], half_closes=bool(more)) for more in ([], [b""])]
    assert (before.answers, before.refusal, before.asked) == (after.answers, after.refusal, after.asked)
    assert after.is_ended


GENERATIONS = [name for name in SAME if CASES[name].startswith(b"POST /p HTTP/1.1")]


@pytest.mark.parametrize("name", GENERATIONS)
async def test_generations_which_go_no_bridge_are_read_alike_wherever_they_are_cut(name):
    """Their bodies are no JSON, so each is answered with 400; one that is here at once is not told to come."""
    theirs = await play(uvicorns, [CASES[name]])
    expected = [400 if path == "/p" else 200 for _, _, path, *_ in theirs.asked]
    expected += [theirs.refusal] if theirs.refusal else []
    for pieces in cuts(CASES[name].replace(b"POST /p ", b"POST /v1/chat/completions ")):
        played = await play(ours, pieces)
        assert [status for status in played.statuses if status != 100] == expected, pieces
        assert (played.is_ended, played.refusal) == (theirs.is_ended, theirs.refusal), pieces
