"""The bounded memory of conversations: which histories are known, which engine is home, how much of them it holds.

Owns the tree of known steps. No IO, no clock, no text: steps are digests made by `identity`, time comes in as `now`
(seconds, monotonic). Never asks whether an engine is alive: the caller compares `Home.incarnation` with the fleet, so
the death of an engine forgets the home and keeps the history.

Semantics:
- The steps of one request form a path. Paths that share a prefix (a system prompt, a branch) share its segments. A
  conversation is a leaf: a turn that extends a leaf keeps one conversation, a branch makes a second one.
- A step is an *answer of ours* only if an engine gave it. A known prefix that was merely part of a request (few-shot
  examples, a system prompt) is known, but is no answer: `History.is_complete` asks for the last assistant message.
- The home of a step is the latest engine that served a request passing through it. Its held tokens are exact at the
  end of a prompt and of an answer. Anywhere else, and for an answer with reasoning (a chat template may leave that out
  even where the client sends it back), they are those of the last exact step before it: a lower bound.
- Bounds: count of conversations, age since last use, count of steps. The least recently used conversation goes first,
  and takes with it what no other conversation shares. Looking a leaf up and remembering it are uses; a step inside a
  longer conversation lives as long as that one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypedDict

import msgspec

from ppd_core.conversation.history import History, Home
from ppd_core.conversation.identity import AnswerSteps, RawSteps, raw_end
from ppd_core.conversation.raw_ends import RawEnds

STEPS_PER_CONVERSATION: Final = 64
"""Default bound on steps, on average over the conversations that may be kept."""


class ConversationRow(TypedDict):
    """One conversation as the admin API shows it. `home` is an engine id, None when it was forgotten; `tokens` what it
    holds."""

    turns: int
    home: str | None
    tokens: int
    age_s: float


class _Segment(msgspec.Struct, gc=False, eq=False):
    """A run of steps without a branch. `keys` are the successive steps of a prompt or, for an answer, the digests it
    may come back under, the full one last. References only point up the tree, so the garbage collector need not
    look at what may be a million of these. Segments of one path share one `home`; its `held_tokens` are not theirs."""

    parent: _Segment | None
    keys: tuple[bytes, ...]
    is_answer: bool
    held_tokens: int
    home: Home | None
    children: int = 0


class Conversations:
    """The store. `max_steps` bounds the memory where conversations have very many messages."""

    def __init__(self, *, max_conversations: int, ttl_s: float, max_steps: int | None = None) -> None:
        if max_conversations < 1:
            raise ValueError(f"max_conversations: {max_conversations} given, must be at least 1")
        if not ttl_s > 0:
            raise ValueError(f"ttl_s: {ttl_s} given, must be a number of seconds above 0")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps: {max_steps} given, must be at least 1")
        self._max_conversations = max_conversations
        self._max_steps = max_steps if max_steps is not None else max_conversations * STEPS_PER_CONVERSATION
        self._ttl_s = ttl_s
        self._steps: dict[bytes, _Segment] = {}
        self._leaves: OrderedDict[_Segment, float] = OrderedDict()  # when last used, least recently used first
        self._raw_ends = RawEnds()
        self._none_expires_before = float("-inf")

    @property
    def count(self) -> int:
        """Number of conversations."""
        return len(self._leaves)

    def look_up_chat(self, steps: Sequence[bytes], *, last_assistant: int, now: float) -> History:
        """What is known of a chat request. `last_assistant` is the index of its last assistant message, -1: none."""
        self.expire(now)
        has_answers = last_assistant >= 0
        for step in reversed(steps):
            segment = self._steps.get(step)
            if segment is not None:
                break
        else:
            return History(has_answers=has_answers)
        self._touch(segment, now)
        last = self._steps.get(steps[last_assistant]) if has_answers else None
        return History(
            known_answers=_count_answers(segment),
            is_complete=last is not None and last.is_answer,
            has_answers=has_answers,
            home=_home_at(segment, step),
        )

    def look_up_raw(self, steps: RawSteps, *, now: float) -> History:
        """What is known of a raw prompt: complete as soon as it starts with a text that ended in an answer of ours."""
        self.expire(now)
        segment = self._find_raw(steps)
        if segment is None:
            return History()
        self._touch(segment, now)
        known_answers = _count_answers(segment)
        return History(
            known_answers=known_answers,
            is_complete=known_answers > 0,
            has_answers=known_answers > 0,
            home=_home_at(segment, segment.keys[-1]),
        )

    def remember_chat(
        self, steps: Sequence[bytes], answer: AnswerSteps | None, *, home: Home, prompt_tokens: int, now: float
    ) -> None:
        """Remember a served chat request. `steps` are its messages, `home` the engine that answered, holding
        `home.held_tokens` after the answer and `prompt_tokens` before it.

        `answer` is None where the answer did not become a message of its own (it continued the client's last message,
        or never ended): then only the prompt is remembered.
        """
        self.expire(now)
        if not 0 < len(steps) < self._max_steps:
            return  # what alone is more than the store may hold must not empty it first
        prompt = self._grow_prompt(steps, home, prompt_tokens)
        end = self._grow_answer(prompt, answer.full, answer.stripped, home) if answer is not None else prompt
        self._touch(prompt, now)  # a leaf still, where the answer hangs on an older reading of the same prompt
        self._settle(end, home, now)

    def remember_raw(
        self, steps: RawSteps, answer: str | Sequence[int] | None, *, home: Home, prompt_tokens: int, now: float
    ) -> None:
        """Remember a served raw prompt; see `remember_chat`. `answer` is the text that follows the prompt (without the
        echoed prompt) or, for token ids, the ids; None or empty where it is not known: then the prompt's end is
        remembered instead, which is no answer. Raises ValueError for an answer of the other kind."""
        self.expire(now)
        end = raw_end(steps, answer or "")
        parent = self._find_raw(steps)
        segment = self._steps.get(end.exact)
        if segment is None:
            segment = self._add(parent, (end.exact,), home, is_answer=bool(answer))
            self._raw_ends.add(end)
        elif answer:
            segment.is_answer = True
        segment.held_tokens = home.held_tokens if answer else prompt_tokens
        self._settle(segment, home, now)

    def expire(self, now: float) -> int:
        """Forget the conversations that were not used for longer than the time to live. Returns how many."""
        count = 0
        if now < self._none_expires_before:
            return count
        used_at = now
        while self._leaves:
            used_at = next(iter(self._leaves.values()))
            if now - used_at <= self._ttl_s:
                break
            self._evict()
            count += 1
        self._none_expires_before = used_at + self._ttl_s
        return count

    def clear(self) -> int:
        """Forget everything. Returns how many conversations that were."""
        count = len(self._leaves)
        for segment in self._steps.values():
            segment.parent = None  # else freeing a very long conversation's last segment recurses through all of it
        self._steps.clear()
        self._leaves.clear()
        self._raw_ends = RawEnds()
        return count

    def forget_homes(self, is_bad: Callable[[Home], bool]) -> int:
        """Forget the homes that are bad, as the death of their engines would; histories stay. Returns how many
        conversations lost theirs. `Home.held_tokens` says nothing here. Looks at every step, a million of them in
        about 0.1 s, so it is for rare occasions."""
        count = sum(leaf.home is not None and is_bad(leaf.home) for leaf in self._leaves)
        for segment in self._steps.values():
            if segment.home is not None and is_bad(segment.home):
                segment.home = None
        return count

    def listing(self, now: float, *, limit: int | None = None) -> list[ConversationRow]:
        """The conversations, the latest used first, at most `limit` of them."""
        rows: list[ConversationRow] = []
        for segment, used_at in reversed(self._leaves.items()):
            if limit is not None and len(rows) >= limit:
                break
            turns = _count_answers(segment)
            home = segment.home.engine_id if segment.home is not None else None
            tokens = segment.held_tokens if home is not None else 0
            rows.append({"turns": turns, "home": home, "tokens": tokens, "age_s": now - used_at})
        return rows

    def _grow_prompt(self, steps: Sequence[bytes], home: Home, prompt_tokens: int) -> _Segment:
        """The segment that ends with the last of `steps`, made of what is known and what is new."""
        known = len(steps)
        while known and steps[known - 1] not in self._steps:
            known -= 1
        segment = self._cut_after(steps[known - 1]) if known else None
        if known < len(steps) or segment is None:
            segment = self._add(segment, tuple(steps[known:]), home, is_answer=False)
        if not segment.is_answer:  # an answer's own count stands where the client continues it
            segment.held_tokens = prompt_tokens
        return segment

    def _grow_answer(self, prompt: _Segment, full: bytes, stripped: Iterable[bytes], home: Home) -> _Segment:
        owner = self._steps.get(full)
        if owner is not None and not owner.is_answer:
            # A client sent this text before an engine gave it: from now on it is an answer.
            owner = self._cut_before_and_after(full)
            owner.is_answer = True
        elif owner is not None and full != owner.keys[-1]:
            self._disown(owner, full)
            owner = None
        if owner is None:
            owner = self._add(prompt, (full,), home, is_answer=True)
        owner.held_tokens = home.held_tokens
        for key in stripped:
            self._adopt(owner, key)
        return owner

    def _adopt(self, owner: _Segment, key: bytes) -> None:
        """Let a stripped form of an answer lead to that answer. The latest answer with this form wins, except over an
        answer that an engine gave in exactly this form."""
        other = self._steps.get(key)
        if other is owner:
            return
        if other is not None and not other.is_answer:
            self._cut_before_and_after(key).is_answer = True
            return
        if other is not None:
            if key == other.keys[-1]:
                return
            self._disown(other, key)
        owner.keys = (key, *owner.keys)
        self._steps[key] = owner

    def _disown(self, owner: _Segment, key: bytes) -> None:
        owner.keys = tuple(other for other in owner.keys if other != key)
        del self._steps[key]

    def _add(self, parent: _Segment | None, keys: tuple[bytes, ...], home: Home, *, is_answer: bool) -> _Segment:
        segment = _Segment(parent, keys, is_answer, _held(parent), home)
        if parent is not None:
            parent.children += 1
            self._leaves.pop(parent, None)
        for key in keys:
            self._steps[key] = segment
        return segment

    def _cut_after(self, step: bytes) -> _Segment:
        """Make a prompt's segment end with this step; returns the segment that does."""
        lower = self._steps[step]
        if lower.is_answer or step == lower.keys[-1]:
            return lower
        at = lower.keys.index(step) + 1
        above = lower.parent
        upper = _Segment(above, lower.keys[:at], False, _held(above), lower.home, 1)
        lower.keys = lower.keys[at:]
        lower.parent = upper
        for key in upper.keys:
            self._steps[key] = upper
        return upper

    def _cut_before_and_after(self, step: bytes) -> _Segment:
        segment = self._cut_after(step)
        if len(segment.keys) > 1:
            self._cut_after(segment.keys[-2])
        return self._steps[step]

    def _settle(self, end: _Segment, home: Home, now: float) -> None:
        """The engine now holds everything up to `end`: make it the home, then keep the bounds."""
        self._touch(end, now)
        segment: _Segment | None = end
        while segment is not None:
            segment.home = home
            segment = segment.parent
        while len(self._leaves) > self._max_conversations or len(self._steps) > self._max_steps:
            self._evict()

    def _touch(self, segment: _Segment, now: float) -> None:
        if not segment.children:
            self._leaves[segment] = now
            self._leaves.move_to_end(segment)

    def _evict(self) -> None:
        segment: _Segment | None = self._leaves.popitem(last=False)[0]
        while segment is not None and not segment.children:
            for key in segment.keys:
                del self._steps[key]
                self._raw_ends.discard(key)
            segment = segment.parent
            if segment is not None:
                segment.children -= 1

    def _find_raw(self, steps: RawSteps) -> _Segment | None:
        exact = self._raw_ends.longest(steps)
        return self._steps[exact] if exact is not None else None


def _held(segment: _Segment | None) -> int:
    """What is held for whatever follows `segment`; an answer of several forms has reasoning, which may not follow."""
    while segment is not None and segment.is_answer and len(segment.keys) > 1:
        segment = segment.parent
    return segment.held_tokens if segment is not None else 0


def _home_at(segment: _Segment, step: bytes) -> Home | None:
    home = segment.home
    if home is None:
        return None
    return Home(
        engine_id=home.engine_id,
        incarnation=home.incarnation,
        held_tokens=_held(segment if step == segment.keys[-1] else segment.parent),
        filled_by=home.filled_by,
        salt=home.salt,
    )


def _count_answers(segment: _Segment | None) -> int:
    count = 0
    while segment is not None:
        count += segment.is_answer
        segment = segment.parent
    return count
