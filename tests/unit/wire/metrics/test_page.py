from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.metrics.page import MAX_LINE_BYTES, MAX_LINES, MAX_PAGE_BYTES, MetricsPage

RUNNING = 'vllm:num_requests_running{engine="0"} 3'
PAGE = f"# HELP x\nvllm:nobody_reads_this 1\r\n{RUNNING}\r\nprocess_start_time_seconds 5\npython_info 1\n{RUNNING}"
KEPT = f"{RUNNING}\nprocess_start_time_seconds 5\n{RUNNING}\n"


@given(st.lists(st.integers(0, len(PAGE)), max_size=9))
def test_the_lines_that_are_read_are_found_wherever_the_page_is_cut(places):
    ends = [0, *sorted(places), len(PAGE)]
    page = MetricsPage()
    for start, end in pairwise(ends):
        page.feed(PAGE[start:end].encode())
    assert page.text() == KEPT


LINE = RUNNING.encode() + b"\n"
BEYOND = {
    "bytes": [b"x\n" * 32768] * (MAX_PAGE_BYTES // 65536 + 1),
    "a line without end": [b"x" * (MAX_LINE_BYTES + 1)],
    "a long line": [b'vllm:num_requests_running{a="' + b"x" * MAX_LINE_BYTES + b'"} 1\n'],
    "lines": [LINE * (MAX_LINES + 1)],
}


@pytest.mark.parametrize("pieces", BEYOND.values(), ids=BEYOND)
def test_a_page_beyond_the_bounds_is_refused_while_it_arrives(pieces):
    page = MetricsPage()
    *before, last = pieces
    for piece in before:
        page.feed(piece)
    with pytest.raises(ValueError, match="more than"):
        page.feed(last)


def test_a_page_within_the_bounds_is_read():
    page = MetricsPage()
    page.feed(LINE * MAX_LINES)
    for _ in range(100):
        page.feed(b"x\n" * 32768)
    assert page.text().count("\n") == MAX_LINES
