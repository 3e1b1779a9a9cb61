import io
import logging

import pytest

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.request.record import Record
from ppd_proxy.telemetry.logs import RequestLog, configure, request_line
from ppd_wire.answers.transfer import Transfer
from ppd_wire.errors import Refusal


def record(**fields):
    known = {"request_id": "r1", "mode": "ppd", "received_at": 10.0, "route": "pd", "reason": DecisionReason.FIRST_TURN}
    return Record(**known | {"status": 200} | fields)


@pytest.fixture
def output():
    """What is logged from level info on; the logging set-up of the tests is put back afterwards."""
    root, package = logging.getLogger(), logging.getLogger("ppd_proxy")
    before = root.handlers[:], root.level, package.level
    root.handlers.clear()  # so that configure does not close those of the tests
    stream = io.StringIO()
    configure("info", stream)
    yield stream
    root.handlers[:], root.level, package.level = before


def test_a_request_is_one_line_with_what_is_known():
    line = request_line(
        record(
            prefill_id="10.0.0.1:8100",
            decode_id="10.0.0.2:8200",
            prompt_tokens=1285,
            completion_tokens=30,
            first_token_at=10.25,
            ended_at=11.0,
        )
    )
    assert line == (
        "id=r1 route=pd reason=first_turn turn=1 status=200 ttft_ms=250.0 prompt_tokens=1285 "
        "completion_tokens=30 prefill=10.0.0.1:8100 decode=10.0.0.2:8200 total_ms=1000.0"
    )


def test_a_request_whose_transfer_was_told_says_what_it_cost():
    line = request_line(record(transfer=Transfer(bytes=262144, seconds=0.0125, blocks=2, skipped_blocks=14)))
    assert line.endswith("status=200 kv_bytes=262144 kv_ms=12.5 kv_blocks=2 kv_skipped=14")


def test_what_is_not_known_is_left_out():
    line = request_line(record(route="none", reason=Refusal.BAD_REQUEST, status=400))
    assert line == "id=r1 route=none reason=bad_request turn=1 status=400"


@pytest.mark.parametrize("request_id", ["a status=200", "a\nb", "", "é", 'a"b c'])
def test_a_client_cannot_forge_fields_or_lines(request_id):
    line = request_line(record(request_id=request_id, status=500))
    assert f"id={request_id!r} route=pd" in line
    assert "\n" not in line


def test_long_errors_are_cut():
    assert len(request_line(record(error="x" * 10_000))) < 400


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        pytest.param({}, "INFO", id="answered"),
        pytest.param({"status": 400, "error": "max_tokens must be positive"}, "INFO", id="client-mistake"),
        pytest.param({"status": 502, "error": "engine broke off"}, "WARNING", id="failed"),
        pytest.param({"status": 200, "error": "engine broke off"}, "WARNING", id="broke-off"),
        pytest.param({"status": 200, "is_client_gone": True, "error": "cut"}, "INFO", id="client-left"),
    ],
)
def test_failures_are_warnings(fields, level):
    lines = written(record(**fields))
    assert lines[0].startswith(f"2026-11-21T08:00:00.250Z {level} ppd_proxy.request: id=r1")


def written(*records, level="info"):
    """The lines of a request log after its delay has passed."""
    stream, delayed = io.StringIO(), []
    log = RequestLog(stream, level, lambda delay_s, work: delayed.append(work))
    for each in records:
        log.add(each, 1795248000.25)
    assert stream.getvalue() == ""
    for work in delayed:
        work()
    return stream.getvalue().splitlines()


def test_lines_wait_together_and_are_written_once_in_order():
    lines = written(record(request_id="a"), record(request_id="b"), record(request_id="c"))
    assert [line.split("id=")[1].split(" ")[0] for line in lines] == ["a", "b", "c"]


def test_a_quieter_level_keeps_the_failures_only():
    lines = written(record(), record(status=502, error="engine broke off"), level="warning")
    assert [" WARNING " in line for line in lines] == [True]


def test_every_record_is_one_line_with_an_iso_time(output):
    log = logging.getLogger("ppd_proxy.x")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("bad\r\nthing \x1b[2J\u2028")
    lines = output.getvalue().splitlines()
    assert len(lines) == 1
    time_text = lines[0].split(" ", 1)[0]
    assert len(time_text) == len("2026-01-31T12:00:00.123Z")
    assert time_text[10] == "T"
    assert "ValueError" in lines[0]
    assert r"bad\r\nthing \x1b[2J\u2028\nTraceback" in lines[0]


def test_levels(output):
    logging.getLogger("ppd_proxy.x").debug("quiet")
    logging.getLogger("aiohttp").info("quiet")
    logging.getLogger("aiohttp").warning("loud")
    assert [line.split(" ", 1)[1] for line in output.getvalue().splitlines()] == ["WARNING aiohttp: loud"]


def test_an_unknown_level_names_the_known_ones():
    with pytest.raises(ValueError, match="'chatty'; it must be debug, info, warning or error"):
        configure("chatty")
