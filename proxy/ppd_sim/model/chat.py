"""The chat template of the simulated model: messages to prompt text and token ids, the same for every engine.

An assistant message renders to exactly the text that was generated, followed by the end token, so that a turn's
answer is found in the prefix cache when it comes back as history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
import xxhash

from ppd_sim.model.tokens import EOS_ID, IMAGE_BASE, IMAGE_IDS, SPECIALS, Tokenizer

_IMAGE_ID: Final = EOS_ID + SPECIALS.index("<|image|>")
_ROLE_ALIASES: Final = MappingProxyType({"developer": "system", "function": "tool"})
_TOOL_PREFIX: Final = '{"text":'


class TemplateError(ValueError):
    """The messages cannot be rendered; vLLM answers 400."""


def canonical_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """JSON with sorted keys, so that equal values render to equal tokens."""
    return msgspec.json.encode(value, order="sorted").decode()


def render(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Prompt text of a chat body and the addresses of its images, in order."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise TemplateError("messages must be a non-empty list")
    images: list[str] = []
    parts = [
        f"<|system|>\n{field} {canonical_json(body[field])}<|end|>\n"
        for field in ("chat_template", "chat_template_kwargs", "documents")
        if body.get(field)
    ]
    if body.get("tools") and body.get("tool_choice") != "none":
        parts.append(f"<|system|>\ntools {canonical_json(body['tools'])}<|end|>\n")
    keeps_last_open = bool(body.get("continue_final_message"))
    for index, message in enumerate(messages):
        is_open = keeps_last_open and index == len(messages) - 1
        parts.append(_render_message(message, images, is_open=is_open))
    if body.get("add_generation_prompt", True) and not keeps_last_open:
        parts.append("<|assistant|>\n")
    return "".join(parts), images


def _render_message(message: Any, images: list[str], *, is_open: bool) -> str:  # noqa: ANN401 - a client's JSON
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise TemplateError("every message must be an object with a role")
    role = _ROLE_ALIASES.get(message["role"], message["role"])
    if f"<|{role}|>" not in SPECIALS:
        raise TemplateError(f"Unexpected message role: {message['role']!r}")
    text = _render_content(message.get("content"), images)
    for call in message.get("tool_calls") or ():
        text += _render_tool_call(call)
    name = f" {message['name']}" if isinstance(message.get("name"), str) else ""
    return f"<|{role}|>{name}\n{text}" + ("" if is_open else "<|end|>\n")


def _render_content(content: Any, images: list[str]) -> str:  # noqa: ANN401 - a client's JSON
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TemplateError("message content must be a string, a list of parts or null")
    parts: list[str] = []
    for part in content:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif isinstance(part, dict) and part.get("type") in ("image_url", "input_image", "image"):
            address = part.get("image_url") or part.get("image")
            images.append(canonical_json(address["url"] if isinstance(address, dict) and "url" in address else address))
            parts.append("<|image|>")
        else:
            raise TemplateError(f"Unknown part type: {part.get('type') if isinstance(part, dict) else part!r}")
    return "".join(parts)


def _render_tool_call(call: Any) -> str:  # noqa: ANN401 - a client's JSON
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise TemplateError("every tool call must be an object with a function")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.startswith(_TOOL_PREFIX):
        return str(msgspec.json.decode(arguments).get("text", arguments))
    return canonical_json(function)


def tool_arguments(text: str) -> str:
    """The arguments of a simulated tool call; `render` turns them back into the generated text."""
    return _TOOL_PREFIX + msgspec.json.encode(text).decode() + "}"


def chat_tokens(tokenizer: Tokenizer, body: Mapping[str, Any], tokens_per_image: int) -> tuple[str, list[int]]:
    """`(prompt text, prompt token ids)`; every image stands for `tokens_per_image` ids drawn from its address."""
    text, images = render(body)
    token_ids = tokenizer.encode(text)
    return text, _expand_images(token_ids, images, tokens_per_image) if images else token_ids


def _expand_images(token_ids: Sequence[int], images: Sequence[str], tokens_per_image: int) -> list[int]:
    expanded: list[int] = []
    remaining = list(reversed(images))
    for token_id in token_ids:
        if token_id == _IMAGE_ID and remaining:
            address = remaining.pop().encode()
            expanded.extend(
                IMAGE_BASE + xxhash.xxh3_64_intdigest(address, seed=place) % IMAGE_IDS
                for place in range(tokens_per_image)
            )
        else:
            expanded.append(token_id)
    return expanded
