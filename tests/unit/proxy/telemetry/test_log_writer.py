"""The log's own thread, on real descriptors: full pipes, readers that left, disks without room."""

import fcntl
import os
import time

import pytest

from ppd_proxy.telemetry.log_writer import LogWriter

PIPE_BYTES = 4096
LIMIT_S = 10.0


def told(lines):
    return f"{lines} dropped\n"


@pytest.fixture
def pipe():
    """Both ends of a pipe that takes a page; whoever closes an end says so by -1."""
    ends = list(os.pipe())
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


@pytest.fixture
def writer_on():
    """Makes writers, and ends them."""
    writers = []

    def make(descriptor, **limits):
        writers.append(LogWriter(descriptor, told, **limits))
        return writers[-1]

    yield make
    for writer in writers:
        writer.end(0.01)


def read_until(descriptor, last):
    """What can be read up to the line `last`."""
    data = b""
    while not data.endswith(last):
        data += os.read(descriptor, 65536)
    return data.decode().splitlines()


def until(condition):
    """For what a thread does without telling anybody."""
    ends_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


def takes(writer, text):
    """Whether the writer took what it was given: after a gap, as soon as the log told of it."""
    before = writer.dropped_lines
    writer.write(text)
    return writer.dropped_lines == before


def line(number):
    return f"{number:099d}\n"


def test_a_reader_that_sleeps_costs_lines_and_no_time_and_is_told_where_they_are_missing(pipe, writer_on):
    writer = writer_on(pipe[1], max_lines=100)
    for number in range(1000):
        writer.write(line(number))
    dropped = writer.dropped_lines
    assert 1000 - 100 - PIPE_BYTES // 100 - 2 <= dropped < 1000
    lines = read_until(pipe[0], b" dropped\n")
    assert [int(each) for each in lines[:-1]] == list(range(1000 - dropped))
    assert lines[-1] == f"{dropped} dropped"
    until(lambda: takes(writer, line(7)))
    assert read_until(pipe[0], line(7).encode())[-1] == line(7).strip()


def test_the_queue_is_bounded_in_bytes_too(pipe, writer_on):
    writer = writer_on(pipe[1], max_bytes=20_000)
    for _ in range(100):
        writer.write("x" * 999 + "\n")
    assert writer.dropped_lines >= 100 - 20 - PIPE_BYTES // 1000 - 2


def test_the_end_does_not_wait_for_a_reader_and_nothing_does_afterwards(pipe, writer_on):
    writer = writer_on(pipe[1])
    writer.write("x" * 3 * PIPE_BYTES + "\n")
    started = time.monotonic()
    writer.end(0.05)
    assert time.monotonic() - started < 1
    os.write(pipe[1], b"x" * 3 * PIPE_BYTES)  # where a traceback of the interpreter's end would go


def test_the_end_writes_what_waits(pipe, writer_on):
    writer = writer_on(pipe[1])
    writer.write("whole\nunfinished")
    writer.end(LIMIT_S)
    assert os.read(pipe[0], 100) == b"whole\nunfinished\n"


def test_pieces_of_a_line_leave_as_one_line(pipe, writer_on):
    writer = writer_on(pipe[1])
    for piece in ("Trace", "back:\n  a", "\nb\n"):
        writer.write(piece)
    assert read_until(pipe[0], b"b\n") == ["Traceback:", "  a", "b"]


def test_what_is_no_text_is_escaped(pipe, writer_on):
    writer_on(pipe[1]).write("\udcff\n")
    assert read_until(pipe[0], b"\n") == ["\\udcff"]


def test_a_pipe_that_does_not_block_loses_nothing(pipe, writer_on):
    os.set_blocking(pipe[1], False)
    writer = writer_on(pipe[1])
    for number in range(200):
        writer.write(line(number))
    assert len(read_until(pipe[0], line(199).encode())) == 200
    assert writer.dropped_lines == 0


def test_a_reader_that_left_is_no_end(pipe, writer_on, monkeypatch):
    tries = []
    monkeypatch.setattr(
        os, "write", lambda descriptor, data, write=os.write: tries.append(1) or write(descriptor, data)
    )
    os.close(pipe[0])
    pipe[0] = -1
    writer = writer_on(pipe[1], retry_s=0.05)
    started = time.monotonic()
    writer.write("a\nb\n")
    until(lambda: writer.dropped_lines == 2 and len(tries) > 2)
    for _ in range(50):
        writer.write("c\n")
    assert writer.dropped_lines == 52
    assert len(tries) <= 2 + (time.monotonic() - started) / 0.05, "tried without a rest"


def test_a_full_disk_is_counted_and_told_once_there_is_room(pipe, writer_on):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        writer = writer_on(descriptor, retry_s=0.01)
        writer.write("a\n")
        until(lambda: writer.dropped_lines == 1)
        os.dup2(pipe[1], descriptor)
        assert read_until(pipe[0], b"dropped\n") == ["1 dropped"]
        until(lambda: takes(writer, "b\n"))
        assert read_until(pipe[0], b"b\n")[-1] == "b"
    finally:
        writer.end(LIMIT_S)
        os.close(descriptor)


@pytest.mark.parametrize(
    "refused",
    [(3, None, None), (None, 3, None)],
    ids=["at once", "by the thread"],
)
def test_a_line_that_was_cut_off_does_not_run_into_the_next(pipe, writer_on, monkeypatch, refused):
    """A disk that is full in the middle of a line."""
    refused = iter(refused)

    def write(descriptor, data, write=os.write):
        if (room := next(refused, len(data))) is None:
            raise OSError(28, "no space left on device")
        return write(descriptor, data[:room])

    monkeypatch.setattr(os, "write", write)
    writer_on(pipe[1], retry_s=0.01).write("abcdef\n")
    assert read_until(pipe[0], b"dropped\n") == ["abc", "1 dropped"]


def test_a_line_of_which_a_part_was_taken_is_finished(pipe, writer_on, monkeypatch):
    refused = iter((3, None))

    def write(descriptor, data, write=os.write):
        if (room := next(refused, len(data))) is None:
            raise BlockingIOError
        return write(descriptor, data[:room])

    monkeypatch.setattr(os, "write", write)
    writer_on(pipe[1]).write("abcdef\nlast\n")
    assert read_until(pipe[0], b"last\n") == ["abcdef", "last"]


def test_lines_that_are_taken_need_no_thread(pipe, writer_on):
    """A thread that writes costs the loop the interpreter's lock."""
    writer = writer_on(pipe[1])
    with writer.lock:  # the thread can do nothing
        writer.write("one\n")
        writer.write("two\nthree\n")
        assert os.read(pipe[0], 65536) == b"one\ntwo\nthree\n"
