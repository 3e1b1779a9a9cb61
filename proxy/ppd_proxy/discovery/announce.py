"""Hears the announcements P2pNccl engines send over ZMQ: who they are, every 3 s.

Owns the ROUTER socket and the checking of what arrives on it. Nothing a sender does ends the listening. Who joins and
who is out is the fleet's to decide. Source of the format: vLLM 0.23, `p2p_nccl_engine.py` (`ping`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import zmq
import zmq.asyncio

from ppd_core.fleet.address import check_zmq_address, parse_address
from ppd_core.fleet.announced import Networks, RejectedAnnouncement, RejectReason
from ppd_core.fleet.engine import Role
from ppd_shell.settings import ConfigError
from ppd_wire.errors import BadRequest

_LOG = logging.getLogger(__name__)
_ROLE_OF_TYPE: Mapping[str, Role] = MappingProxyType({"P": "prefill", "D": "decode"})
_MAX_MESSAGE_BYTES = 16 * 1024
_LOG_AGAIN_AFTER_S = 600.0
_MAX_LOGGED_SENDERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What an engine says about itself; both addresses are `host:port` and have been checked."""

    role: Role
    http_address: str
    zmq_address: str
    is_ppd: bool


def parse_announcement(payload: bytes) -> Announcement:
    """Read one msgpack map; raises RejectedAnnouncement (a ValueError) naming the field, its value and what is right.

    `type` is "P" or "D". Two optional keys of ours: `ppd` says that the engine takes direct requests, `role` may say
    "prefill", "decode" or "both". Other keys are ignored.
    """
    try:
        fields = msgspec.msgpack.decode(payload)
    except (ValueError, RecursionError) as error:
        raise RejectedAnnouncement(f"not a msgpack message: {error}", "not_msgpack") from None
    if not isinstance(fields, dict):
        message = f"the message is a {type(fields).__name__}; it must be a map"
        raise RejectedAnnouncement(message, "not_a_map")
    http_address, zmq_address = _text(fields, "http_address"), _text(fields, "zmq_address")
    is_ppd = fields.get("ppd", False)
    if not isinstance(is_ppd, bool):
        raise RejectedAnnouncement(f"ppd is {is_ppd!r}; it must be true or false", "bad_field")
    try:
        parse_address(http_address, field="http_address")
        check_zmq_address(zmq_address)
    except BadRequest as error:
        raise RejectedAnnouncement(error.message, "bad_field") from None
    return Announcement(role=_role(fields), http_address=http_address, zmq_address=zmq_address, is_ppd=is_ppd)


def _text(fields: dict[object, object], name: str) -> str:
    if name not in fields:
        raise RejectedAnnouncement(f"{name} is missing", "missing_field")
    value = fields[name]
    if not isinstance(value, str):
        raise RejectedAnnouncement(f"{name} is {value!r}; it must be a string", "bad_field")
    return value


def _role(fields: dict[object, object]) -> Role:
    kind = _text(fields, "type")
    if kind not in _ROLE_OF_TYPE:
        raise RejectedAnnouncement(f'type is {kind!r}; it must be "P" or "D"', "unknown_type")
    role = _ROLE_OF_TYPE[kind]
    stated = fields.get("role", role)
    if stated == "both":
        return "prefill"  # also what a stock engine with kv_role=kv_both announces
    if stated != role:
        raise RejectedAnnouncement(f'role is {stated!r}; with type {kind!r} it must be {role!r} or "both"', "bad_field")
    return role


def _peer(frame: zmq.Frame) -> str:
    """The IP address that a frame came from; "" where ZMQ does not know."""
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""


class AnnouncementListener:
    """A ZMQ ROUTER that hands every valid announcement to `on_announcement` and counts the others.

    Sender, HTTP address and KV address must be in the `allowed` networks (None: anywhere). `on_announcement` may raise
    RejectedAnnouncement, too. `start`, then `run` as a task until `stop` (which makes `run` return) or cancellation.
    """

    def __init__(
        self,
        host: str,
        port: int,
        on_announcement: Callable[[Announcement], None],
        *,
        on_rejected: Callable[[RejectReason], None],
        allowed: Networks | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._on_announcement = on_announcement
        self._on_rejected = on_rejected
        self._allowed = allowed
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._logged_senders: set[bytes] = set()
        self._forget_senders_at = 0.0

    @property
    def port(self) -> int:
        """The port that is bound; the one asked for before `start`."""
        return self._port

    async def start(self) -> None:
        """Bind; port 0 takes a free one. Raises ConfigError when the address cannot be bound."""
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        # A restarted engine reuses its identity; without this it is ignored until the old connection is found dead.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        is_ipv6 = ":" in self._host
        self._socket.setsockopt(zmq.IPV6, is_ipv6)
        host = f"[{self._host.strip('[]')}]" if is_ipv6 else self._host
        try:
            self._socket.bind(f"tcp://{host}:{self._port or '*'}")
        except zmq.ZMQError as error:
            self.stop()
            mistake = f"discovery cannot listen on {self._host}:{self._port}: {error.strerror}; give a free address"
            raise ConfigError([mistake]) from error
        self._port = int(self._socket.get_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])

    async def run(self) -> None:
        """Hear announcements until `stop`."""
        socket = self._socket
        if socket is None:
            raise RuntimeError("start() comes before run()")
        while not socket.closed:
            try:
                frames = await socket.recv_multipart(copy=False)  # frames that know where they came from
            except asyncio.CancelledError:
                if socket.closed:  # closing cancels the pending receive, which is not a cancellation of this task
                    return
                raise
            self._hear(frames)
            # A receive with data waiting does not suspend; a flood must not keep the loop from serving requests.
            await asyncio.sleep(0)

    def stop(self) -> None:
        """Close the socket and free the port. May be called more than once."""
        socket, self._socket = self._socket, None
        context, self._context = self._context, None
        if socket is not None:
            socket.close()
        if context is not None:
            context.term()

    def _hear(self, frames: list[zmq.Frame]) -> None:
        try:
            if self._allowed is not None:
                self._allowed.check_sender(_peer(frames[-1]))
            if len(frames) != 2:  # identity, payload
                raise RejectedAnnouncement(f"{len(frames) - 1} frames; it must be one", "bad_frames")
            announcement = parse_announcement(frames[1].bytes)
            if self._allowed is not None:
                self._allowed.check_address(announcement.http_address, field="http_address")
                self._allowed.check_address(announcement.zmq_address, field="zmq_address")
            self._on_announcement(announcement)
        except RejectedAnnouncement as error:
            self._on_rejected(error.reason)
            self._log_once(frames[0].bytes, error)

    def _log_once(self, sender: bytes, error: RejectedAnnouncement) -> None:
        """One line per sender and while, for a bounded number of senders: who is wrong is wrong every 3 s."""
        now = asyncio.get_running_loop().time()
        if now >= self._forget_senders_at:
            self._logged_senders.clear()
            self._forget_senders_at = now + _LOG_AGAIN_AFTER_S
        if sender not in self._logged_senders and len(self._logged_senders) < _MAX_LOGGED_SENDERS:
            self._logged_senders.add(sender)
            _LOG.warning("announcement rejected sender=%r reason=%s: %s", sender, error.reason, error)
