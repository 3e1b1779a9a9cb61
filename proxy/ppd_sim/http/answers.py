"""The shapes of vLLM's generation answers: JSON bodies and stream events, for chat and for completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ppd_sim.model.body import GenerationRequest, Json
from ppd_sim.model.chat import tool_arguments
from ppd_sim.model.model import Scored
from ppd_sim.model.sequence import Decoded
from ppd_sim.model.tokens import Tokenizer

PromptScores = list[list[Scored] | None]
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Token counts of one request; `cached_tokens` as the engine reports it."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None

    def to_json(self) -> Json:
        """As in a JSON body: with every field."""
        empty = {"created_cache_tokens": None, "multimodal_tokens": None}
        details = None if self.cached_tokens is None else {"cached_tokens": self.cached_tokens, **empty}
        return {**self._totals(), "prompt_tokens_details": details, "completion_tokens_details": None}

    def to_chunk(self) -> Json:
        """As in a stream: without the empty fields."""
        details = {} if self.cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": self.cached_tokens}}
        return {**self._totals(), **details}

    def _totals(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }


@dataclass(slots=True, kw_only=True)
class Answered:
    """One finished answer."""

    index: int
    prompt: int
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    scores: list[list[Scored]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def add(self, step: Decoded) -> None:
        """One step is one token, and one piece of text."""
        self.pieces.append(step.text)
        self.token_ids += step.token_ids
        self.scores += step.scores or []
        self.finish_reason, self.stop_reason = step.finish_reason, step.stop_reason


class AnswerShaper:
    """Shapes the answer of one request; one instance per request because id and time are the same in every chunk."""

    def __init__(
        self,
        request: GenerationRequest,
        tokenizer: Tokenizer,
        *,
        request_id: str,
        created: int,
        reasoning_tokens: int = 0,
    ) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._is_chat = request.endpoint == "chat"
        self._reasoning_tokens = reasoning_tokens if self._is_chat else 0
        self._text_offset: dict[int, int] = {}
        self._has_sent_prompt: set[int] = set()
        self._opened_tools: set[int] = set()
        self._held_text: dict[int, str] = {}
        prefix, name = ("chatcmpl-", "chat.completion") if self._is_chat else ("cmpl-", "text_completion")
        self.answer_id = prefix + request_id
        self._head = {"id": self.answer_id, "object": name, "created": created, "model": request.model_name}
        self._chunk_head = {**self._head, "object": name + (".chunk" if self._is_chat else "")}
        self._is_plain = (
            request.logprobs is None
            and not request.has_token_ids
            and not request.has_continuous_usage
            and not request.has_echo
            and request.tool_name is None
            and not self._reasoning_tokens
        )
        self._plain_head = _encode(self._chunk_head)[:-1]

    def encode(self, value: Json) -> bytes:
        return _encode(value)

    def role_event(self, index: int, usage: TokenUsage | None) -> bytes:
        """The first chunk of a chat stream: the role and no text."""
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        chunk = {**self._chunk_head, "choices": [choice]}
        if usage is not None:
            chunk["usage"] = usage.to_chunk()
        chunk["prompt_token_ids"] = self._request.prompts[0] if self._request.has_token_ids else None
        chunk["prompt_text"] = self._request.prompt_text if self._request.body.get("return_prompt_text") else None
        return _encode(chunk)

    def step_event(
        self, choice: Answered, step: Decoded, usage: TokenUsage | None, prompt_scores: PromptScores | None
    ) -> bytes | None:
        """One chunk of a stream; None where a parser holds the step back and nobody asked for its ids or logprobs."""
        request = self._request
        if self._is_plain and step.finish_reason is None:
            return self._plain_event(choice.index, step.text)
        if self._is_chat:
            delta = self._delta(choice, step)
            is_counted = request.has_token_ids or request.logprobs is not None
            if delta is None and step.finish_reason is None and not is_counted:
                return None
            shaped = self._chat_chunk_choice(choice, step, delta or {})
        else:
            shaped = self._completion_chunk_choice(choice, step, prompt_scores)
        chunk: Json = {**self._chunk_head, "choices": [shaped]}
        if usage is not None:
            chunk["usage"] = usage.to_chunk()
        return _encode(chunk)

    def usage_event(self, usage: TokenUsage) -> bytes:
        """The last chunk of a stream that asked for usage."""
        return _encode({**self._chunk_head, "choices": [], "usage": usage.to_chunk()})

    def body(
        self,
        choices: Sequence[Answered],
        usage: TokenUsage,
        prompt_scores: Sequence[PromptScores | None],
        kv_params: Json | None,
    ) -> Json:
        """The whole answer as JSON."""
        request = self._request
        answer: Json = {**self._head, "choices": [], "service_tier": None, "system_fingerprint": None}
        answer["usage"] = usage.to_json()
        if self._is_chat:
            answer["choices"] = [self._chat_choice(choice) for choice in choices]
            answer["prompt_logprobs"] = self._prompt_map(prompt_scores[0]) if self._wants_prompt_logprobs else None
            answer["prompt_token_ids"] = request.prompts[0] if request.has_token_ids else None
            answer["prompt_text"] = request.prompt_text if request.body.get("return_prompt_text") else None
        else:
            answer["choices"] = [self._completion_choice(choice, prompt_scores[choice.prompt]) for choice in choices]
        return {**answer, "kv_transfer_params": kv_params, "ec_transfer_params": None, "metrics": None}

    @property
    def _wants_prompt_logprobs(self) -> bool:
        return self._request.prompt_logprobs is not None

    def _plain_event(self, index: int, text: str) -> bytes:
        shown = _encode(text)
        if self._is_chat:
            return (
                b'%b,"choices":[{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null,'
                b'"token_ids":null}]}' % (self._plain_head, index, shown)
            )
        return (
            b'%b,"choices":[{"index":%d,"text":%b,"logprobs":null,"finish_reason":null,"stop_reason":null,'
            b'"prompt_token_ids":null,"token_ids":null}]}' % (self._plain_head, index, shown)
        )

    def _chat_chunk_choice(self, choice: Answered, step: Decoded, delta: Json) -> Json:
        shaped: Json = {
            "index": choice.index,
            "delta": delta,
            "logprobs": self._chat_logprobs(step.token_ids, step.scores),
            "finish_reason": self._chat_reason(step.finish_reason),
        }
        if step.finish_reason is not None:
            shaped["stop_reason"] = step.stop_reason
        shaped["token_ids"] = step.token_ids if self._request.has_token_ids else None
        return shaped

    def _delta(self, choice: Answered, step: Decoded) -> Json | None:
        """What the step adds to the message; None while a reasoning or tool parser has nothing to tell."""
        if len(choice.token_ids) < self._reasoning_tokens:
            return {"reasoning": step.text}
        if len(choice.token_ids) == self._reasoning_tokens:
            return None
        if self._request.tool_name is None:
            return {"content": step.text}
        if self._is_tool_required and choice.index not in self._held_text and step.finish_reason is None:
            self._held_text[choice.index] = step.text  # the call's name is not complete yet
            return None
        shown = tool_arguments(self._held_text.get(choice.index, "") + step.text)
        self._held_text[choice.index] = ""
        opening, text, closing = shown[:9], shown[9:-2], shown[-2:]
        is_first = choice.index not in self._opened_tools
        self._opened_tools.add(choice.index)
        arguments = (opening if is_first else "") + text + (closing if step.finish_reason is not None else "")
        call: Json = {"index": 0, "function": {"arguments": arguments}}
        if is_first:
            call = {"id": self._tool_id(choice.index), "type": "function", **call}
            call["function"] = {"name": self._request.tool_name, "arguments": arguments}
        return {"tool_calls": [call]}

    def _tool_id(self, index: int) -> str:
        return f"chatcmpl-tool-{self.answer_id[-8:]}-{index}"

    @property
    def _is_tool_required(self) -> bool:
        return self._request.body.get("tool_choice") == "required" and self._request.tool_name is not None

    def _chat_reason(self, reason: str | None) -> str | None:
        return "tool_calls" if reason == "stop" and self._is_tool_required else reason

    def _chat_choice(self, choice: Answered) -> Json:
        thinking = self._reasoning_tokens
        text = "".join(choice.pieces[thinking:])
        message: Json = {
            "role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None,
            "function_call": None,
        }  # fmt: skip
        if self._request.tool_name is not None:
            function = {"name": self._request.tool_name, "arguments": tool_arguments(text)}
            message["content"] = ""
            message["tool_calls"] = [{"id": self._tool_id(choice.index), "type": "function", "function": function}]
        elif self._request.has_echo:
            last = (self._request.body.get("messages") or [{}])[-1]
            if last.get("role") == "assistant" and isinstance(last.get("content"), str):
                message["content"] = last["content"] + text
        message["reasoning"] = "".join(choice.pieces[: thinking - 1]) if thinking else None
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._chat_logprobs(choice.token_ids, choice.scores),
            "finish_reason": self._chat_reason(choice.finish_reason),
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if self._request.has_token_ids else None,
            "routed_experts": None,
        }

    def _completion_chunk_choice(self, choice: Answered, step: Decoded, prompt_scores: PromptScores | None) -> Json:
        is_first = choice.index not in self._has_sent_prompt
        self._has_sent_prompt.add(choice.index)
        prompt = self._request.prompts[choice.prompt]
        has_echo = is_first and self._request.has_echo
        scores: Iterable[list[Scored] | None] = step.scores or ()
        logprobs = None
        if self._request.logprobs is not None:
            echoed = prompt if has_echo else []
            scores = [*(prompt_scores or ()), *scores] if has_echo else scores
            logprobs = self._completion_logprobs([*echoed, *step.token_ids], scores, choice.index)
        return {
            "index": choice.index,
            "text": (self._echo_text(choice.prompt) if has_echo else "") + step.text,
            "logprobs": logprobs,
            "finish_reason": step.finish_reason,
            "stop_reason": step.stop_reason,
            "prompt_token_ids": prompt if has_echo or (is_first and self._request.has_token_ids) else None,
            "token_ids": step.token_ids if self._request.has_token_ids else None,
        }

    def _completion_choice(self, choice: Answered, prompt_scores: PromptScores | None) -> Json:
        request = self._request
        prompt = request.prompts[choice.prompt]
        logprobs = None
        if request.logprobs is not None:
            token_ids = [*prompt, *choice.token_ids] if request.has_echo else choice.token_ids
            scores = [*(prompt_scores or ()), *choice.scores] if request.has_echo else choice.scores
            logprobs = self._completion_logprobs(token_ids, scores, choice.index)
        return {
            "index": choice.index,
            "text": (self._echo_text(choice.prompt) if request.has_echo else "") + choice.text,
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if request.has_token_ids else None,
            "prompt_logprobs": self._prompt_map(prompt_scores) if self._wants_prompt_logprobs else None,
            "prompt_token_ids": prompt if request.has_token_ids else None,
            "routed_experts": None,
        }

    def _echo_text(self, prompt: int) -> str:
        if self._request.has_token_ids:
            return ""
        return self._request.prompt_text or self._tokenizer.decode(self._request.prompts[prompt])

    def _chat_logprobs(self, token_ids: Sequence[int], scores: Sequence[list[Scored]] | None) -> Json | None:
        top = self._request.logprobs
        if top is None or scores is None:
            return None
        content = []
        for token_id, step in zip(token_ids, scores, strict=True):
            shown = step if top < 0 else step[:top]
            entry = self._named(token_id, step[0].logprob)
            entry["top_logprobs"] = [self._named(score.token_id, score.logprob) for score in shown]
            content.append(entry)
        return {"content": content}

    def _named(self, token_id: int, logprob: float) -> Json:
        token = self._tokenizer.decode((token_id,))
        return {"token": self._token_name(token_id), "logprob": logprob, "bytes": list(token.encode())}

    def _token_name(self, token_id: int) -> str:
        if self._request.body.get("return_tokens_as_token_ids"):
            return f"token_id:{token_id}"
        return self._tokenizer.decode((token_id,))

    def _completion_logprobs(
        self, token_ids: Sequence[int], scores: Iterable[list[Scored] | None], index: int
    ) -> dict[str, list[Any]]:
        top = self._request.logprobs or 0
        offset = self._text_offset.get(index, 0)
        shaped: dict[str, list[Any]] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token_id, step in zip(token_ids, scores, strict=True):
            name = self._token_name(token_id)
            shaped["text_offset"].append(offset)
            shaped["tokens"].append(name)
            shaped["token_logprobs"].append(step[0].logprob if step else None)
            shown = (step if top < 0 else step[: top + 1]) if step else None
            shaped["top_logprobs"].append(
                None if shown is None else {self._token_name(score.token_id): score.logprob for score in shown}
            )
            offset += len(name)
        self._text_offset[index] = offset
        return shaped

    def _prompt_map(self, scores: PromptScores | None) -> list[Json | None]:
        return [
            None
            if step is None
            else {
                str(score.token_id): {
                    "logprob": score.logprob,
                    "rank": score.rank,
                    "decoded_token": self._tokenizer.decode((score.token_id,)),
                }
                for score in step
            }
            for step in scores or ()
        ]
