"""Whether an answer is the one to our request, told by its id.

vLLM puts the id that a leg carried into its answer (`chatcmpl-<X-Request-Id>`). An engine, or what stands before it,
that sends a second answer late sends it into the next request on that connection, where nothing but the id tells it
apart. Not every engine echoes ids, so that is learned, for each engine and endpoint, from its answers. Source: vLLM
0.32, `entrypoints/serve/engine/serving.py` (`_base_request_id`) and the endpoints' serving modules. No IO.
"""

from __future__ import annotations

from ppd_core.fleet.engine import Engine

MISSES = 10
"""So many answers in a row without our id say that the engine does not echo, or not any more: something else may have
taken its place."""
MAX_KNOWN = 4096


class Echo:
    """One engine's habit at one endpoint, in whole answers or in streams. `echoes` is None until it is known.

    What stands before an engine may give ids of its own to one of the two only. Until that shows, either is a sign of
    the other.
    """

    __slots__ = ("echoes", "incarnation", "misses", "other")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.other: Echo | None = None
        self.misses = 0
        self.echoes: bool | None = None

    def admits_without_id(self) -> bool:
        """Whether an answer that has not our id is to be taken for ours all the same."""
        self.misses += 1
        if self.misses >= MISSES:
            self.echoes = False
        return not (self.other.echoes if self.echoes is None and self.other is not None else self.echoes)


class Expected:
    """The id that one leg's answer must have, where its engine echoes ids."""

    __slots__ = ("_echo", "_key")

    def __init__(self, key: bytes, echo: Echo) -> None:
        self._key = key
        self._echo = echo

    def is_met(self, answer: bytes) -> bool:
        """`answer`: a whole body, or the first events of a stream. The id cannot be in a stranger's answer: nobody else
        knew it."""
        echo = self._echo
        if answer.find(self._key) >= 0:
            echo.misses, echo.echoes = 0, True
            return True
        return echo.admits_without_id()


class Echoes:
    """The habits of all engines, each for its current incarnation."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], tuple[Echo, Echo]] = {}

    def of(self, engine: Engine, endpoint: bytes, *, is_stream: bool = False) -> Echo:
        """`endpoint` is the path without its query: an engine may echo ids at one and not at another."""
        place = (engine.id, endpoint)
        pair = self._known.get(place)
        if pair is None or pair[0].incarnation != engine.incarnation:
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            whole, stream = pair = self._known[place] = Echo(engine.incarnation), Echo(engine.incarnation)
            whole.other, stream.other = stream, whole
        return pair[is_stream]

    def echoes_ids(self, engine: Engine) -> bool | None:
        """Whether the engine echoes ids at any endpoint; None while that is not known."""
        pairs = [pair for (id_, _), pair in self._known.items() if id_ == engine.id]
        known = {echo.echoes for pair in pairs for echo in pair if echo.incarnation == engine.incarnation}
        return True if True in known else False if False in known else None
