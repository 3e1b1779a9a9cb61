"""An upstream connection on a socket that is none, and who hears what comes on it."""

import asyncio

from tests.support.scripted import BODY, HEAD

from ppd_proxy.upstream.connection import Connection


class Wire(asyncio.Transport):
    """The socket's side of a connection: what was written, and whether it is closed."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.is_closed = self.is_aborted = False
        self.is_read = True
        self.unsent = 0

    def writelines(self, pieces):
        self.written += b"".join(pieces)

    def get_write_buffer_size(self):
        return self.unsent

    def is_closing(self):
        return self.is_closed

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def is_reading(self):
        return self.is_read

    def pause_reading(self):
        self.is_read = False

    def resume_reading(self):
        self.is_read = True


class Receiver:
    heard_at, is_answering = 0.0, False

    def __init__(self):
        self.calls = []
        self.body = b""
        self.failure = None
        self.is_untouched = None

    def on_headers(self, status, headers):
        self.calls.append("headers")
        self.status, self.headers = status, headers

    def on_data(self, data):
        self.calls[-1] == "data" or self.calls.append("data")
        self.body += data

    def on_complete(self):
        self.calls.append("complete")

    def on_failure(self, failure, *, is_untouched):
        self.calls.append("failure")
        self.failure, self.is_untouched = failure, is_untouched


class Line:
    """A connection on a wire, and what its owner hears."""

    def __init__(self):
        self.idle, self.lost = [], []
        self.connection = Connection(self.idle.append, self.lost.append)
        self.wire = Wire()
        self.connection.connection_made(self.wire)

    def ask(self):
        receiver = Receiver()
        self.connection.request(HEAD, BODY, receiver)
        return receiver

    def hear(self, *pieces):
        for piece in pieces:
            self.connection.data_received(piece)

    def lose(self, error=None):
        self.connection.connection_lost(error)
