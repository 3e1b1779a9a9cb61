import pytest

from ppd_wire.errors import BadRequest, EngineFailure, Failure, NoRoute, ProxyError, Refusal

ENGINE = EngineFailure("died", reason=Failure.ENGINE_ERROR)
TAKEN = ProxyError("stopping", status=503, reason=Failure.STOPPING, source="proxy")


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (BadRequest("no", param="n"), (400, "bad_request", "client", False, "n")),
        (BadRequest("no", status=401, reason=Refusal.UNAUTHORIZED), (401, "unauthorized", "client", False, None)),
        (NoRoute("no", reason=Refusal.BUFFERS_FULL), (503, "buffers_full", "proxy", True, None)),
        (ENGINE, (502, "engine_error", "engine", True, None)),
        (TAKEN, (503, "stopping", "proxy", False, None)),
    ],
)
def test_an_error_says_whose_fault_it_is_and_whether_to_try_again(error, facts):
    assert (error.status, error.reason, error.source, error.is_retryable, error.param) == facts
    assert str(error) == error.message


def test_an_engine_that_is_only_late_may_be_busy():
    assert not ENGINE.is_late
    assert EngineFailure("late", reason=Failure.ENGINE_UNREACHABLE, is_late=True).is_late
