"""What one engine can do, found out by asking it, and in what several of them differ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_wire.requests.asking import BARE

TEXT = "The 3 quick brown foxes: 12.5 % — naïve café, 東京, \U0001f98a!\n\tdef f(x): return x**2"
"""Tokenized on every engine: words, digits, symbols, several scripts, white space and code."""
DEPTH = 20
"""vLLM's own limit of logprobs per token."""
_LOWER_DEPTHS = (5, 1)
_TOKENS = 8
_UNREACHABLE = ("unreachable", "timeout", "broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One engine. `error` says why it is not healthy. None elsewhere is what it does not tell.

    `model` is asked for, the first of `models` unless told otherwise; `root` is where it was loaded from. `latency_ms`
    is of a whole answer of `tokens` tokens. `logprobs` is how many it gives per token, 0 for none. `tokenizer` is a
    digest of the token ids of `TEXT`, `rendering` of a fixed question's under its chat template. `decision` is our
    proxy's route. `missing` are abilities that the accuracy commands would use, and what they do without.
    """

    url: str
    is_reachable: bool
    error: str | None = None
    model: str | None = None
    models: tuple[str, ...] = ()
    root: str | None = None
    max_model_len: int | None = None
    version: str | None = None
    latency_ms: float | None = None
    tokens: int | None = None
    logprobs: int | None = None
    has_token_ids: bool | None = None
    has_prompt_logprobs: bool | None = None
    tokenizer: str | None = None
    rendering: str | None = None
    decision: str | None = None
    missing: tuple[str, ...] = ()
    has_broken_numbers: bool = False
    """Whether it is not healthy because logprobs are missing or no numbers."""

    @property
    def is_healthy(self) -> bool:
        return self.is_reachable and self.error is None

    def data(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"is_healthy": self.is_healthy, **asdict(self)}


async def check_health(engine: Engine, *, depth: int = DEPTH) -> Health:
    """Never raises for what the engine does: that is what is told. `depth` logprobs per token are asked for."""
    found: dict[str, Any] = {"url": engine.url, "is_reachable": True}
    missing: list[str] = []
    try:
        listed = await engine.models()
        name = found["model"] = await engine.model()
        card = next((each for each in listed if each.get("id") == name), {})
        length, root = card.get("max_model_len"), card.get("root")
        found |= {
            "models": tuple(str(each.get("id")) for each in listed),
            "max_model_len": length if isinstance(length, int) else None,
            "root": root if isinstance(root, str) else None,
        }
        found["version"] = await engine.version()
        if found["version"] is None:
            missing.append("no /version: engines of different releases cannot be told apart")
        answer = await _generate(engine, depth, found, missing)
        found["tokenizer"] = await _tokenizer(engine, name, missing)
        found["has_prompt_logprobs"] = await _can_score(engine, answer, found, missing)
    except EngineTrouble as trouble:
        found |= {"error": str(trouble), "is_reachable": trouble.reason not in _UNREACHABLE}
    return Health(**found, missing=tuple(missing))


async def _generate(engine: Engine, depth: int, found: dict[str, Any], missing: list[str]) -> Answer:
    """An answer with as many logprobs as the engine gives. Raises EngineTrouble."""
    answer = await _deepest(engine, depth)
    if not answer.tokens and not answer.reasoning:
        raise EngineTrouble("bad_answer", f"{engine.url} generated no token")
    if None in answer.logprobs:
        found["has_broken_numbers"] = True
        found["error"] = f"{answer.logprobs.count(None)} of {len(answer.logprobs)} logprobs are missing or no numbers"
    given = min(depth, max((len(top) for top in answer.tops), default=0)) if answer.logprobs else 0
    rendered = answer.prompt_token_ids
    found |= {
        "latency_ms": answer.total_ms,
        "tokens": len(answer.tokens),
        "logprobs": given,
        "has_token_ids": answer.ids is not None,
        "rendering": digest(rendered) if rendered is not None else None,
        "decision": answer.decision,
    }
    if not given:
        missing.append("no logprobs: differences cannot be classified, compare-logprobs has nothing to compare")
    elif given < min(2, depth):
        missing.append("one logprob per token only: margins are unknown, differences cannot be classified")
    if answer.ids is None:
        what = "names of tokens" if answer.unit == "tokens" else "words"
        missing.append(f"no token ids (return_token_ids): {what} are compared, and nothing can be scored")
    return answer


async def _deepest(engine: Engine, depth: int) -> Answer:
    question = Question(prompt=TEXT)
    for asked in (depth, *(lower for lower in _LOWER_DEPTHS if lower < depth)):
        try:
            return await engine.ask(question, _sampling(asked))
        except EngineTrouble as trouble:
            if trouble.reason not in ("status_400", "status_422"):
                raise
    bare = Question(prompt=TEXT, extra=dict(BARE))
    return await engine.ask(bare, _sampling(1))


def _sampling(top_k: int) -> Sampling:
    return Sampling(temperature=0.0, top_p=1.0, seed=42, max_tokens=_TOKENS, top_k=top_k)


async def _tokenizer(engine: Engine, model: str, missing: list[str]) -> str | None:
    try:
        told = await engine.post("/tokenize", {"model": model, "prompt": TEXT})
    except EngineTrouble:
        told = None
    ids = told.get("tokens") if isinstance(told, dict) else None
    if not isinstance(ids, list) or not all(isinstance(each, int) for each in ids):
        missing.append("no /tokenize: tokenizers are compared by the prompt's tokens only, where those are told")
        return None
    return digest(ids)


async def _can_score(engine: Engine, answer: Answer, found: dict[str, Any], missing: list[str]) -> bool | None:
    """Whether a prefill tells what it thinks of given tokens; unknown where there are no ids to give."""
    if not answer.ids or not answer.prompt_token_ids:
        return None
    try:
        positions = await engine.score(answer.prompt_token_ids, answer.ids)
    except EngineTrouble as trouble:
        missing.append(f"no prompt_logprobs: nothing is scored by teacher forcing ({trouble})")
        return False
    broken = sum(each.logprob is None for each in positions)
    if broken:
        found["has_broken_numbers"] = True
        found["error"] = f"{broken} of {len(positions)} prompt logprobs are missing or no numbers"
    return True


def digest(ids: Sequence[int]) -> str:
    """Short and stable: the same for the same token ids only."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


_NAME = (("model", "the model's name"),)
_MUST_AGREE = (("tokenizer", "the tokenizer"), ("rendering", "the prompt's tokens"))
_MAY_DIFFER = (("max_model_len", "max_model_len"), ("root", "where the model was loaded from"), ("version", "version"))


def differences(healths: Sequence[Health], *, has_one_name: bool = True) -> tuple[list[str], list[str]]:
    """Sentences on what makes the engines incomparable, and on what is only worth knowing. Unknowns differ from
    nothing. `has_one_name`: another name is another model; otherwise one model may be served under several."""
    must, may = (_NAME + _MUST_AGREE, _MAY_DIFFER) if has_one_name else (_MUST_AGREE, _NAME + _MAY_DIFFER)
    return _differing(healths, must), _differing(healths, may)


def _differing(healths: Sequence[Health], fields: Sequence[tuple[str, str]]) -> list[str]:
    sentences = []
    for field, name in fields:
        told = [(each.url, getattr(each, field)) for each in healths if getattr(each, field) is not None]
        if len({value for _, value in told}) > 1:
            sentences.append(f"{name} differs: " + ", ".join(f"{value} on {url}" for url, value in told))
    return sentences
