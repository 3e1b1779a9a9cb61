"""The P2pNccl announcement: a DEALER that tells a proxy's ROUTER, every few seconds, who this engine is."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgpack  # type: ignore[import-untyped]
import zmq
import zmq.asyncio

from ppd_connector.wire import announcement
from ppd_sim.config import EngineConfig


async def announce_forever(config: EngineConfig, http_address: str, zmq_address: str) -> None:
    """Send the announcement until cancelled. An engine that serves as both counts as a producer, as in vLLM."""
    kind: Literal["P", "D"] = "D" if config.role == "decode" else "P"
    payload = msgpack.packb(announcement(kind, http_address, zmq_address, ppd=config.is_ppd))
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt_string(zmq.IDENTITY, zmq_address)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.connect(f"tcp://{config.announce}")
        while True:
            await socket.send(payload)
            await asyncio.sleep(config.announce_interval_s)
    finally:
        socket.close()
        context.term()
