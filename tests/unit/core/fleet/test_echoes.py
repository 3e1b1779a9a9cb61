"""Which answers are taken for ours, as an engine's habit becomes known."""

import pytest
from tests.support.builders import decode

from ppd_core.fleet.echoes import MAX_KNOWN, MISSES, Echoes, Expected

CHAT, MESSAGES = b"/v1/chat/completions", b"/v1/messages"
OURS, THEIRS = b'{"id":"chatcmpl-abc","choices":[]}', b'{"id":"chatcmpl-xyz","choices":[]}'


def met(echoes, engine, answer, endpoint=CHAT, **how):
    return Expected(b"abc", echoes.of(engine, endpoint, **how)).is_met(answer)


def test_before_the_first_echo_every_answer_is_taken():
    echoes = Echoes()
    assert echoes.echoes_ids(decode()) is None
    assert all(met(echoes, decode(), THEIRS) for _ in range(3 * MISSES))


def test_an_engine_that_echoed_once_must_go_on():
    echoes = Echoes()
    assert met(echoes, decode(), OURS)
    assert echoes.echoes_ids(decode()) is True
    assert not met(echoes, decode(), THEIRS)
    assert not met(echoes, decode(), b"{}")
    assert met(echoes, decode(), OURS)


def test_ten_answers_without_our_id_say_that_an_engine_does_not_echo():
    echoes = Echoes()
    for _ in range(MISSES - 1):
        met(echoes, decode(), THEIRS)
        assert echoes.echoes_ids(decode()) is None
    met(echoes, decode(), THEIRS)
    assert echoes.echoes_ids(decode()) is False
    met(echoes, decode(), OURS)
    assert echoes.echoes_ids(decode()) is True


def test_an_engine_that_stopped_echoing_is_not_refused_for_ever():
    """Something else may have taken its place without being noticed down."""
    echoes = Echoes()
    met(echoes, decode(), OURS)
    assert [met(echoes, decode(), THEIRS) for _ in range(MISSES + 1)] == [False] * (MISSES - 1) + [True, True]
    assert echoes.echoes_ids(decode()) is False


def test_engines_endpoints_and_incarnations_are_known_apart():
    echoes = Echoes()
    met(echoes, decode(), OURS)
    assert met(echoes, decode(), THEIRS, MESSAGES)
    assert met(echoes, decode("d2"), THEIRS)
    assert met(echoes, decode(incarnation=1), THEIRS)
    assert echoes.echoes_ids(decode(incarnation=1)) is None


def test_an_engine_echoes_when_it_does_at_one_endpoint():
    echoes = Echoes()
    for _ in range(MISSES):
        met(echoes, decode(), THEIRS, MESSAGES)
    met(echoes, decode(), OURS)
    assert echoes.echoes_ids(decode()) is True


@pytest.mark.parametrize("is_stream", [False, True])
def test_whole_answers_and_streams_are_a_sign_of_each_other_until_one_shows_to_be_otherwise(is_stream):
    """However often the one echoes meanwhile: else the other would be refused for ever."""
    echoes = Echoes()
    taken = []
    for _ in range(2 * MISSES):
        assert met(echoes, decode(), OURS, is_stream=is_stream)
        taken.append(met(echoes, decode(), THEIRS, is_stream=not is_stream))
    assert taken == [False] * (MISSES - 1) + [True] * (MISSES + 1)
    assert echoes.echoes_ids(decode()) is True
    assert not met(echoes, decode(), THEIRS, is_stream=is_stream)


def test_what_is_known_is_bounded():
    echoes = Echoes()
    for number in range(MAX_KNOWN + 100):
        met(echoes, decode(f"d{number}"), OURS)
    assert echoes.echoes_ids(decode("d0")) is None
    assert echoes.echoes_ids(decode(f"d{MAX_KNOWN + 99}")) is True
