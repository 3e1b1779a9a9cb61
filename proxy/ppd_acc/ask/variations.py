"""More prompts like the given ones: different to a cache and to the noise, alike in length and content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ppd_acc.ask.question import Question


def variations(prompts: Sequence[str], count: int) -> list[Question]:
    """`count` different questions: the prompts, then each with a numbered first line, in turn.

    The same prompt asked often is one sample asked often: a greedy engine repeats itself, and what repeats must not be
    counted as if it were independent.
    """
    return [Question(prompt=vary(prompts[number % len(prompts)], number // len(prompts))) for number in range(count)]


def vary_question(question: Question, number: int) -> Question:
    """The question itself for 0; token ids and messages without a text of their own stay as they are."""
    if isinstance(question.prompt, str):
        return replace(question, prompt=vary(question.prompt, number))
    if not question.messages or not isinstance(question.messages[-1].get("content"), str):
        return question
    *before, last = question.messages
    return replace(question, messages=[*before, {**last, "content": vary(str(last["content"]), number)}])


def vary(prompt: str, number: int) -> str:
    """The prompt itself for 0."""
    return f"(variation {number})\n{prompt}" if number else prompt
