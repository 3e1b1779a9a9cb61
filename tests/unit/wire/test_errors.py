"""What each kind of error says by itself: status, whose fault, whether a retry is safe."""

from enum import StrEnum

import pytest

from ppd_wire.errors import BadRequest, EngineFailure, Failure, NoRoute, ProxyError, Refusal


class Gone(StrEnum):
    NO_ENGINE = "no_engine"


@pytest.mark.parametrize(
    ("error", "status", "source", "is_retryable"),
    [
        (BadRequest("n is -1"), 400, "client", False),
        (BadRequest("large", status=413, reason=Refusal.BODY_TOO_LARGE), 413, "client", False),
        (NoRoute("no engine", reason=Gone.NO_ENGINE), 503, "proxy", True),
        (EngineFailure("died", reason=Failure.ENGINE_ERROR), 502, "engine", True),
        (EngineFailure("slow", reason=Failure.ENGINE_TIMEOUT, status=504, is_late=True), 504, "engine", True),
        (EngineFailure("no socket", reason=Failure.OUT_OF_SOCKETS, source="proxy"), 502, "proxy", True),
        (ProxyError("a bug", status=500, reason=Failure.INTERNAL_ERROR, source="proxy"), 500, "proxy", False),
    ],
)
def test_an_error_says_whose_fault_it_is_and_whether_to_try_again(error, status, source, is_retryable):
    assert isinstance(error, ProxyError)
    assert (error.status, error.source, error.is_retryable) == (status, source, is_retryable)
    assert str(error) == error.message


def test_a_bad_request_names_its_field_and_has_a_reason():
    assert (BadRequest("n is -1", param="n").param, BadRequest("n is -1").reason) == ("n", Refusal.BAD_REQUEST)


def test_only_a_failure_in_time_may_be_lateness():
    assert not EngineFailure("died", reason=Failure.ENGINE_ERROR).is_late
