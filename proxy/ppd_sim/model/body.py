"""What a client may ask of a simulated engine: bodies are checked here, with vLLM's words for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ppd_sim.model.chat import TemplateError, chat_tokens
from ppd_sim.model.tokens import VOCAB_SIZE, Tokenizer

Endpoint = Literal["chat", "completions"]
Json = dict[str, Any]


class Rejected(Exception):
    """A request vLLM answers with an error object instead of an answer."""

    def __init__(
        self, message: str, *, status: int = 400, error_type: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_type = error_type
        self.param = param

    def to_json(self) -> Json:
        return error_json(self.message, self.status, self.error_type, self.param)


def error_json(message: str, status: int, error_type: str, param: str | None = None) -> Json:
    """vLLM's error object."""
    return {"error": {"message": message, "type": error_type, "param": param, "code": status}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What this engine serves."""

    model_name: str
    adapters: tuple[str, ...]
    max_model_len: int
    default_max_tokens: int | None
    tokens_per_image: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A checked generation request; `prompts` has one entry per prompt, each at least one token long."""

    endpoint: Endpoint
    body: Json
    prompts: list[list[int]]
    prompt_text: str
    max_tokens: list[int]
    n: int
    model_name: str
    adapter: str | None
    cache_salt: str
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    min_tokens: int
    ignores_eos: bool
    stop: tuple[str, ...]
    stop_token_ids: frozenset[int]
    keeps_stop: bool
    is_stream: bool
    has_usage: bool
    has_continuous_usage: bool
    has_token_ids: bool
    logprobs: int | None
    prompt_logprobs: int | None
    has_echo: bool
    kv_params: Json | None
    tool_name: str | None = field(default=None)

    @property
    def sequences(self) -> int:
        return self.n * len(self.prompts)


class Reader:
    """Takes typed fields out of a body; the first wrong one is refused."""

    def __init__(self, body: Json) -> None:
        self.body = body

    def number(self, name: str, default: float, low: float, high: float = float("inf")) -> float:
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Rejected(_type_error(name, "a valid number", value), error_type="Bad Request", param=f"body.{name}")
        if not low <= value <= high:
            raise Rejected(f"{name} must be in [{low:g}, {high:g}], got {value}.", param=name)
        return float(value)

    def integer(self, name: str, default: int | None, low: int) -> int | None:
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise Rejected(_type_error(name, "a valid integer", value), error_type="Bad Request", param=f"body.{name}")
        if value < low:
            raise Rejected(f"{name} must be at least {low}, got {value}.", param=name)
        return value

    def flag(self, name: str) -> bool:
        value = self.body.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise Rejected(_type_error(name, "a valid boolean", value), error_type="Bad Request", param=f"body.{name}")

    def strings(self, name: str) -> tuple[str, ...]:
        value = self.body.get(name)
        texts = [value] if isinstance(value, str) else value or []
        if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
            raise Rejected(_type_error(name, "a valid string", value), error_type="Bad Request", param=f"body.{name}")
        if not all(texts):
            raise Rejected(f"{name} cannot contain an empty string.", param=name)
        return tuple(texts)

    def mapping(self, name: str) -> Json | None:
        value = self.body.get(name)
        if value is None or isinstance(value, dict):
            return value
        raise Rejected(_type_error(name, "a valid dictionary", value), error_type="Bad Request", param=f"body.{name}")


def _type_error(name: str, wanted: str, value: object) -> str:
    kind = f"{wanted.split()[-1]}_type"
    return (
        f"1 validation error:\n  {{'type': '{kind}', 'loc': 'body.{name}', "
        f"'msg': 'Input should be {wanted}', 'input': {value!r}}}"
    )


def read(endpoint: Endpoint, body: Json, tokenizer: Tokenizer, limits: Served) -> GenerationRequest:
    """The request in `body`, or `Rejected`."""
    reader = Reader(body)
    model_name = _model(body, limits)
    prompt_text, prompts = _prompts(endpoint, body, tokenizer, limits)
    stream_options = reader.mapping("stream_options") or {}
    is_stream = reader.flag("stream")
    if stream_options and not is_stream:
        raise Rejected("Stream options can only be defined when `stream=True`.", param="stream_options")
    min_tokens = reader.integer("min_tokens", 0, 0) or 0
    asked = _asked_max_tokens(endpoint, reader, limits)
    max_tokens = [_fit(asked, len(prompt), limits) for prompt in prompts]
    if min_tokens > min(max_tokens):
        raise Rejected(f"min_tokens must be less than or equal to max_tokens={min(max_tokens)}, got {min_tokens}.")
    temperature = reader.number("temperature", 1.0, 0.0, 2.0)
    n = reader.integer("n", 1, 1) or 1
    if n > 1 and temperature < 1e-5:
        raise Rejected(f"n must be 1 when using greedy sampling, got {n}.")
    stop_token_ids = body.get("stop_token_ids") or []
    return GenerationRequest(
        endpoint=endpoint,
        body=body,
        prompts=prompts,
        prompt_text=prompt_text,
        max_tokens=max_tokens,
        n=n,
        model_name=model_name,
        adapter=model_name if model_name in limits.adapters else None,
        cache_salt=_salt(body),
        temperature=temperature,
        top_p=reader.number("top_p", 1.0, 1e-9, 1.0),
        top_k=int(reader.number("top_k", 0, -1)),
        seed=reader.integer("seed", None, -(1 << 63)),
        min_tokens=min_tokens,
        ignores_eos=reader.flag("ignore_eos"),
        stop=reader.strings("stop"),
        stop_token_ids=frozenset(_token_ids(stop_token_ids, "stop_token_ids")),
        keeps_stop=reader.flag("include_stop_str_in_output"),
        is_stream=is_stream,
        has_usage=bool(stream_options.get("include_usage")),
        has_continuous_usage=bool(stream_options.get("continuous_usage_stats")),
        has_token_ids=reader.flag("return_token_ids"),
        logprobs=_logprobs(endpoint, reader),
        prompt_logprobs=_prompt_logprobs(reader, is_stream=is_stream),
        has_echo=reader.flag("echo"),
        kv_params=reader.mapping("kv_transfer_params"),
        tool_name=_tool_name(body) if endpoint == "chat" else None,
    )


def _model(body: Json, limits: Served) -> str:
    name = body.get("model")
    if name is None or name == "":
        return limits.model_name
    if name == limits.model_name or name in limits.adapters:
        return str(name)
    raise Rejected(
        f"The model `{name}` does not exist. Valid aliases: {limits.model_name}.",
        status=404,
        error_type="NotFoundError",
        param="model",
    )


def _prompts(endpoint: Endpoint, body: Json, tokenizer: Tokenizer, limits: Served) -> tuple[str, list[list[int]]]:
    if endpoint == "chat":
        try:
            text, token_ids = chat_tokens(tokenizer, body, limits.tokens_per_image)
        except TemplateError as error:
            raise Rejected(str(error), param="messages") from error
        return text, [token_ids]
    prompt = body.get("prompt")
    if prompt is None or prompt in ("", []):
        raise Rejected("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    if isinstance(prompt, str):
        return prompt, [tokenizer.encode(prompt)]
    if not isinstance(prompt, list):
        raise Rejected(_type_error("prompt", "a valid string", prompt), error_type="Bad Request", param="body.prompt")
    if isinstance(prompt[0], int):
        return "", [_token_ids(prompt, "prompt")]
    several = [tokenizer.encode(item) if isinstance(item, str) else _token_ids(item, "prompt") for item in prompt]
    if not all(several):
        raise Rejected("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    return "", several


def _token_ids(value: object, name: str) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        raise Rejected(_type_error(name, "a valid list", value), error_type="Bad Request", param=f"body.{name}")
    outside = next((item for item in value if not 0 <= item < VOCAB_SIZE), None)
    if outside is not None:
        raise Rejected(f"Token id {outside} is out of vocabulary", param=name)
    return value


def _asked_max_tokens(endpoint: Endpoint, reader: Reader, limits: Served) -> int | None:
    if endpoint == "chat":
        asked = reader.integer("max_completion_tokens", None, 1)
        return reader.integer("max_tokens", limits.default_max_tokens, 1) if asked is None else asked
    least = 0 if reader.flag("echo") else 1
    return reader.integer("max_tokens", limits.default_max_tokens or 16, least)


def _fit(asked: int | None, prompt_tokens: int, limits: Served) -> int:
    room = limits.max_model_len - prompt_tokens
    if asked is not None and asked > limits.max_model_len:
        raise Rejected(
            f"max_tokens={asked} cannot be greater than max_model_len={limits.max_model_len}. "
            "Please request fewer output tokens.",
            param="max_tokens",
        )
    if room < 1:
        raise Rejected(
            f"This model's maximum context length is {limits.max_model_len} tokens. However, your request has "
            f"{prompt_tokens} input tokens. Please reduce the length of the input messages.",
            param="input_tokens",
        )
    return room if asked is None else min(asked, room)


def _salt(body: Json) -> str:
    salt = body.get("cache_salt")
    if salt is None:
        return ""
    if not isinstance(salt, str) or not salt:
        raise Rejected("Parameter 'cache_salt' must be a non-empty string if provided.", param="cache_salt")
    return salt


def _logprobs(endpoint: Endpoint, reader: Reader) -> int | None:
    if endpoint == "completions":
        asked = reader.integer("logprobs", None, -1)
    else:
        top = reader.integer("top_logprobs", 0, -1) or 0
        if top and not reader.flag("logprobs"):
            raise Rejected("when using `top_logprobs`, `logprobs` must be set to true.", param="top_logprobs")
        asked = top if reader.flag("logprobs") else None
    if asked is not None and asked > 20:
        raise Rejected(f"Requested sample logprobs of {asked}, which is greater than max allowed: 20", param="logprobs")
    return asked


def _prompt_logprobs(reader: Reader, *, is_stream: bool) -> int | None:
    asked = reader.integer("prompt_logprobs", None, -1)
    if asked is not None and is_stream and asked >= 0:
        raise Rejected("`prompt_logprobs` are not available when `stream=True`.", param="prompt_logprobs")
    return asked


def _tool_name(body: Json) -> str | None:
    choice, tools = body.get("tool_choice"), body.get("tools")
    if isinstance(choice, Mapping):
        return str(choice.get("function", {}).get("name"))
    if choice == "required" and isinstance(tools, Sequence) and tools and isinstance(tools[0], Mapping):
        return str(tools[0].get("function", {}).get("name"))
    return None
