"""Both halves of one rank behind one endpoint: which message is for whom."""

from __future__ import annotations

from ppd_connector.messages import Abort, Ack, Done, Get, Meet, Message, Parted, Put, Ready, Sent
from ppd_connector.receiver import Receiver
from ppd_connector.route import Route
from ppd_connector.sender import Sender


class Courier:
    """An `endpoint.Handler`. A message that makes no sense for this engine's role is a ValueError."""

    def __init__(self, sender: Sender | None, receiver: Receiver | None) -> None:
        self._sender = sender
        self._receiver = receiver

    def received(self, route: Route, message: Message, payload: memoryview | None, now: float) -> None:
        sender, receiver = self._sender, self._receiver
        if isinstance(message, Parted) and (sender or receiver):
            for half in (sender, receiver):
                if half is not None:
                    half.parted(message, now)
            return None
        if receiver is not None:
            if isinstance(message, Put):
                return receiver.put(route, message, payload, now)
            if isinstance(message, Abort):
                return receiver.aborted(message)
            if isinstance(message, Sent):
                return receiver.sent(message)
            if isinstance(message, Meet):
                return receiver.meet(route, message, now)
        if sender is not None:
            if isinstance(message, Ack):
                return sender.acknowledged(route, message, now)
            if isinstance(message, Get):
                return sender.asked(route, message, now)
            if isinstance(message, Done):
                return sender.done(message)
            if isinstance(message, Ready):
                return sender.ready(route, message)
        raise ValueError(f"{type(message).__name__} from {route.address or 'a peer'}: this engine has no part in it")

    def tick(self, now: float) -> float | None:
        halves = (self._sender, self._receiver)
        times = [half.tick(now) for half in halves if half is not None]
        return min((at for at in times if at is not None), default=None)
