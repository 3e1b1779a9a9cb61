"""A client's connection on a socket that is none: when its next request's turn comes."""

import asyncio
import json

from tests.support.cluster import running_cluster, until
from tests.support.raw_client import chat

from ppd_proxy.server.protocol import ClientConnection
from ppd_sim.faults import Fault


class Wire(asyncio.Transport):
    """Whatever is written has to wait for the client, which takes all of it before the loop's next turn is over."""

    def __init__(self, connection):
        super().__init__()
        self.written = b""
        self._connection = connection
        connection.connection_made(self)

    def write(self, data):
        self.written += data
        self._connection.pause_writing()
        asyncio.get_running_loop().call_soon(self._connection.resume_writing)

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return False

    def pause_reading(self): ...

    def resume_reading(self): ...

    def abort(self): ...


async def test_requests_sent_ahead_are_answered_one_after_the_other_by_a_client_that_takes_each_answer_late():
    """Both the answer's end and the client's taking it call for the next request: only one may be begun."""
    async with running_cluster() as cluster:
        connection = ClientConnection(cluster.runtime._server._door)
        wire = Wire(connection)
        try:
            cluster.prefill.faults.add(Fault(kind="delay", delay_s=0.2, nth=2))
            connection.data_received(b"".join(chat(f"Number {number}", max_tokens=number) for number in range(1, 6)))
            await until(lambda: wire.written.count(b"HTTP/1.1 200 OK") == 5)
            bodies = [part.partition(b"\r\n\r\n")[2] for part in wire.written.split(b"HTTP/1.1 200 OK")[1:]]
            assert [json.loads(body)["usage"]["completion_tokens"] for body in bodies] == [1, 2, 3, 4, 5]
        finally:
            connection.connection_lost(None)
