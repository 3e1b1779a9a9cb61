"""The bounded memory of conversations: which histories are known, which engine is home, how much of them it holds.

Owns what the tree of known steps (`tree.py`) means. No IO, no clock, no text: steps are digests made by `identity`,
time comes in as `now` (seconds, monotonic). Never asks whether an engine is alive: the caller compares
`Home.incarnation` with the fleet, so the death of an engine forgets the home and keeps the history.

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

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypedDict

from ppd_core.conversation.history import History, Home
from ppd_core.conversation.homes import Homes
from ppd_core.conversation.identity import AnswerSteps, RawSteps, raw_end
from ppd_core.conversation.raw_ends import RawEnds
from ppd_core.conversation.step_index import ABSENT
from ppd_core.conversation.tree import Tree

STEPS_PER_CONVERSATION: Final = 64
"""Default bound on steps, on average over the conversations that may be kept."""
EXPIRED_AT_ONCE: Final = 20
"""Conversations that leave in one call: 2 ms."""
FREED_AT_ONCE: Final = 5000


class ConversationRow(TypedDict):
    """One conversation as the admin API shows it. `home` is an engine id, None when it was forgotten; `tokens` what it
    holds."""

    turns: int
    home: str | None
    tokens: int
    age_s: float


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
        self._begin()
        self._retired: list[list[Any] | dict[Any, Any]] = []
        """What was forgotten in one go, and is freed a part at a time: thousands of small pieces."""
        self._none_expires_before = float("-inf")

    def _begin(self) -> None:
        self._homes = Homes()
        self._tree = Tree(self._max_steps, self._homes)
        self._raw_ends = RawEnds()

    @property
    def count(self) -> int:
        """Number of conversations."""
        return self._tree.leaves

    @property
    def steps(self) -> int:
        """Number of steps that are known."""
        return self._tree.steps.count

    def look_up_chat(self, steps: Sequence[bytes], *, last_assistant: int, now: float) -> History:
        """What is known of a chat request. `last_assistant` is the index of its last assistant message, -1: none."""
        self.expire(now)
        tree, has_answers = self._tree, last_assistant >= 0
        for step in reversed(steps):
            segment = tree.steps.get(step)
            if segment != ABSENT:
                break
        else:
            return History(has_answers=has_answers)
        self._touch(segment, now)
        last = ABSENT
        if has_answers:
            last = segment if step is steps[last_assistant] else tree.steps.get(steps[last_assistant])
        return History(
            known_answers=tree.answers(segment),
            is_complete=last != ABSENT and tree.is_answer(last),
            has_answers=has_answers,
            home=self._home_at(segment, step),
        )

    def look_up_raw(self, steps: RawSteps, *, now: float) -> History:
        """What is known of a raw prompt: complete as soon as it starts with a text that ended in an answer of ours."""
        self.expire(now)
        segment = self._find_raw(steps)
        if segment == ABSENT:
            return History()
        self._touch(segment, now)
        known_answers = self._tree.answers(segment)
        return History(
            known_answers=known_answers,
            is_complete=known_answers > 0,
            has_answers=known_answers > 0,
            home=self._home_at(segment, self._tree.last_key(segment)),
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
        number = self._homes.number(home)
        prompt = self._grow_prompt(steps, number, prompt_tokens)
        end = prompt
        if answer is not None:
            end = self._grow_answer(prompt, answer.full, answer.stripped, number, home.held_tokens)
        if end != prompt:
            self._touch(prompt, now)  # a leaf still, where the answer hangs on an older reading of the same prompt
        self._settle(end, number, now)

    def remember_raw(
        self, steps: RawSteps, answer: str | Sequence[int] | None, *, home: Home, prompt_tokens: int, now: float
    ) -> None:
        """Remember a served raw prompt; see `remember_chat`. `answer` is the text that follows the prompt (without the
        echoed prompt) or, for token ids, the ids; None or empty where it is not known: then the prompt's end is
        remembered instead, which is no answer. Raises ValueError for an answer of the other kind."""
        self.expire(now)
        end = raw_end(steps, answer or "")
        tree, number = self._tree, self._homes.number(home)
        parent = self._find_raw(steps)
        segment = tree.steps.get(end.exact)
        if segment == ABSENT:
            segment = tree.add(parent, (end.exact,), 0, number, is_answer=bool(answer))
            self._raw_ends.add(end)
        elif answer:
            tree.mark_answer(segment)
        tree.hold(segment, home.held_tokens if answer else prompt_tokens)
        self._settle(segment, number, now)

    def expire(self, now: float) -> int:
        """Forget conversations that were not used for longer than the time to live, at most EXPIRED_AT_ONCE of them; to
        be called often. Returns how many."""
        if self._retired:
            self._free_a_part()
        count = 0
        if now < self._none_expires_before:
            return count
        tree, used_at = self._tree, now
        while tree.leaves:
            used_at = tree.oldest_used_at()
            if now - used_at <= self._ttl_s or count == EXPIRED_AT_ONCE:
                break
            self._evict()
            count += 1
        self._none_expires_before = used_at + self._ttl_s
        return count

    def clear(self) -> int:
        """Forget everything. Returns how many conversations that were."""
        count = self._tree.leaves
        self._retired += [*self._tree.retire(), *self._raw_ends.retire()]
        self._begin()
        return count

    def _free_a_part(self) -> None:
        last = self._retired[-1]
        for _ in range(min(FREED_AT_ONCE, len(last))):
            if isinstance(last, list):
                last.pop()
            else:
                last.popitem()
        if not last:
            self._retired.pop()

    def forget_homes(self, is_bad: Callable[[Home], bool]) -> int:
        """Forget the homes that are bad, as the death of their engines would; histories stay. Returns how many
        conversations lost theirs. `Home.held_tokens` says nothing here."""
        return self._homes.forget(is_bad)

    def listing(self, now: float, *, limit: int | None = None) -> list[ConversationRow]:
        """The conversations, the latest used first, at most `limit` of them."""
        rows: list[ConversationRow] = []
        for segment, used_at in self._tree.newest_first(self.count if limit is None else limit):
            home = self._homes.at(self._tree.home_number(segment), self._tree.held_tokens(segment))
            rows.append({
                "turns": self._tree.answers(segment),
                "home": home.engine_id if home is not None else None,
                "tokens": home.held_tokens if home is not None else 0,
                "age_s": now - used_at,
            })
        return rows

    def _grow_prompt(self, steps: Sequence[bytes], home: int, prompt_tokens: int) -> int:
        """The segment that ends with the last of `steps`, made of what is known and what is new."""
        tree, known, segment = self._tree, len(steps), ABSENT
        while known:
            segment = tree.steps.get(steps[known - 1])
            if segment != ABSENT:
                segment = self._cut_after(segment, steps[known - 1])
                break
            known -= 1
        if known < len(steps):
            return tree.add(segment, tuple(steps[known:]), prompt_tokens, home, is_answer=False)
        if not tree.is_answer(segment):  # an answer's own count stands where the client continues it
            tree.hold(segment, prompt_tokens)
        return segment

    def _grow_answer(self, prompt: int, full: bytes, stripped: Iterable[bytes], home: int, held_tokens: int) -> int:
        tree = self._tree
        owner = tree.steps.get(full)
        if owner != ABSENT and not tree.is_answer(owner):
            # A client sent this text before an engine gave it: from now on it is an answer.
            owner = self._cut_before_and_after(owner, full)
            tree.mark_answer(owner)
        elif owner != ABSENT and full != tree.last_key(owner):
            tree.take_from(owner, full)
            owner = ABSENT
        if owner == ABSENT:
            owner = tree.add(prompt, (full,), held_tokens, home, is_answer=True)
        else:
            tree.hold(owner, held_tokens)
        for key in stripped:
            self._adopt(owner, key)
        return owner

    def _adopt(self, owner: int, key: bytes) -> None:
        """Let a stripped form of an answer lead to that answer. The latest answer with this form wins, except over an
        answer that an engine gave in exactly this form."""
        tree = self._tree
        other = tree.steps.get(key)
        if other == owner:
            return
        if other != ABSENT:
            if not tree.is_answer(other):
                tree.mark_answer(self._cut_before_and_after(other, key))
                return
            if key == tree.last_key(other):
                return
            tree.take_from(other, key)
        tree.put_before(owner, key)

    def _cut_after(self, segment: int, step: bytes) -> int:
        """Make a prompt's segment end with this step; returns the segment that does."""
        tree = self._tree
        if tree.is_answer(segment) or step == tree.last_key(segment):
            return segment
        return tree.cut_after(segment, step, self._held(tree.parent(segment)))

    def _cut_before_and_after(self, segment: int, step: bytes) -> int:
        segment = self._cut_after(segment, step)
        keys = self._tree.keys(segment)
        if len(keys) > 1:
            self._cut_after(segment, keys[-2])
        return segment

    def _settle(self, end: int, home: int, now: float) -> None:
        """The engine now holds everything up to `end`: make it the home, then keep the bounds."""
        self._touch(end, now)
        self._tree.settle(end, home)
        while self._tree.leaves > self._max_conversations or self._tree.steps.count > self._max_steps:
            self._evict()

    def _touch(self, segment: int, now: float) -> None:
        if not self._tree.is_continued(segment):
            self._tree.use(segment, now)

    def _evict(self) -> None:
        tree = self._tree
        segment = tree.oldest()
        while segment != ABSENT and not tree.is_continued(segment):
            if self._raw_ends.count:
                for key in tree.keys(segment):
                    self._raw_ends.discard(key)
            segment = tree.remove(segment)

    def _find_raw(self, steps: RawSteps) -> int:
        exact = self._raw_ends.longest(steps)
        return self._tree.steps.get(exact) if exact is not None else ABSENT

    def _held(self, segment: int) -> int:
        """What is held for whatever follows `segment`; an answer of several forms has reasoning, which may not
        follow."""
        tree = self._tree
        while segment != ABSENT and tree.is_answer(segment) and tree.has_several(segment):
            segment = tree.parent(segment)
        return tree.held_tokens(segment) if segment != ABSENT else 0

    def _home_at(self, segment: int, step: bytes) -> Home | None:
        tree = self._tree
        is_end = step == tree.last_key(segment)
        return self._homes.at(tree.home_number(segment), self._held(segment if is_end else tree.parent(segment)))
