"""What an endpoint is, by what it tells of itself: every sign is kept, and nothing is concluded from silence.

An unsplit engine and a prefill engine answer alike. So "aggregated" is said only of what says so; what is merely alive
is unknown, unsplit as far as it shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client.parser import text_string_to_metric_families

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_wire.metrics.roles import EndpointKind, Totals, signs_of
from ppd_wire.requests.asking import HELD_FOR_ANOTHER, is_held_for_another

Kind = EndpointKind | Literal["unknown"]
_NODES = ("aggregated", "prefill", "decode")
_UNREACHABLE = ("unreachable", "timeout", "broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One thing an endpoint told. `says` is what follows from it, None where nothing does."""

    source: str
    told: str
    says: Kind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """`statement` is the conclusion in words."""

    url: str
    kind: Kind
    statement: str
    signs: tuple[Sign, ...]


async def detect(engine: Engine, *, has_leave: bool = False) -> Detection:
    """Asks small endpoints only; with `has_leave` also for one token, offered for another engine to decode on.

    Raises EngineTrouble where nothing answers at all.
    """
    told = await asyncio.gather(*(_told(engine, path) for path, _ in _PATHS))
    lost = [each for each in told if isinstance(each, EngineTrouble) and each.reason in _UNREACHABLE]
    if len(lost) == len(told):
        raise lost[0]
    signs: list[Sign] = []
    for (path, read), answer in zip(_PATHS, told, strict=True):
        if not isinstance(answer, EngineTrouble):
            signs += read(answer)
        elif path == "/accuracy":
            signs += _refused_accuracy(str(answer))
    if has_leave and all(sign.says != "ppd-proxy" for sign in signs):
        signs.append(await _ask(engine))
    kind, statement = conclude(signs)
    return Detection(url=engine.url, kind=kind, statement=statement, signs=tuple(signs))


async def _told(engine: Engine, path: str) -> Any:
    """JSON, the text of the metrics, or why there is none."""
    try:
        return await (engine.text(path) if path == "/metrics" else engine.get(path))
    except EngineTrouble as trouble:
        return trouble


def conclude(signs: list[Sign]) -> tuple[Kind, str]:
    """What the signs come to. A proxy wins over what it passes on; engines' signs must not contradict each other."""
    said = {sign.says for sign in signs if sign.says is not None}
    for front in ("ppd-proxy", "router"):
        if front in said:
            names = ", ".join(dict.fromkeys(sign.told for sign in signs if sign.says == front))
            return ("ppd-proxy", "a ppd-proxy") if front == "ppd-proxy" else ("router", f"another router: {names}")
    nodes = [node for node in _NODES if node in said]
    if len(nodes) > 1:
        return "unknown", f"signs of {' and of '.join(nodes)}: an engine of both roles, or one that changed its role"
    if nodes == ["aggregated"]:
        return "aggregated", "an unsplit engine: it says that it hands no KV over"
    if nodes:
        return ("prefill", "a prefill engine") if nodes == ["prefill"] else ("decode", "a decode engine")
    return "unknown", "unknown, unsplit as far as it shows: no sign of a proxy or of KV handed over"


def _version(told: Any) -> Iterator[Sign]:
    if isinstance(told, dict) and isinstance(told.get("version"), str):
        yield Sign(source="/version", told=told["version"])


def _models(told: Any) -> Iterator[Sign]:
    cards = told.get("data") if isinstance(told, dict) else None
    for card in cards if isinstance(cards, list) else ():
        if isinstance(card, dict):
            yield Sign(source="/v1/models", told=f"{card.get('id')}, owned by {card.get('owned_by')}")


def _simulated(told: Any) -> Iterator[Sign]:
    role = told.get("role") if isinstance(told, dict) else None
    if role in _NODES:
        yield Sign(source="/sim/state", told=f"a simulated engine, role {role}", says=role)


def _vllm_config(told: Any) -> Iterator[Sign]:
    """vLLM with VLLM_SERVER_DEV_MODE=1."""
    config = told.get("vllm_config") if isinstance(told, dict) else None
    if not isinstance(config, dict) or "kv_transfer_config" not in config:
        return
    transfer = config["kv_transfer_config"]
    if transfer is None:
        yield Sign(source="/server_info", told="no kv_transfer_config", says="aggregated")
    elif isinstance(transfer, dict):
        kinds: dict[Any, Kind] = {"kv_producer": "prefill", "kv_consumer": "decode"}
        role = transfer.get("kv_role")
        told = f"{transfer.get('kv_connector')}, kv_role {role}"
        yield Sign(source="/server_info", told=told, says=kinds.get(role))


def _sglang_config(told: Any) -> Iterator[Sign]:
    mode = told.get("disaggregation_mode") if isinstance(told, dict) else None
    kinds: dict[Any, Kind] = {"null": "aggregated", "prefill": "prefill", "decode": "decode"}
    if mode in kinds:
        yield Sign(source="/get_server_info", told=f"SGLang, disaggregation_mode {mode}", says=kinds[mode])


def _proxy_engines(told: Any) -> Iterator[Sign]:
    engines = told.get("engines") if isinstance(told, dict) else None
    for each in engines if isinstance(engines, list) else ():
        if isinstance(each, dict) and each.get("role") in _NODES:
            yield Sign(source="/engines", told=f"{each.get('id')}, {each['role']}", says="ppd-proxy")


def _accuracy(told: Any) -> Iterator[Sign]:
    if isinstance(told, dict) and "scopes" in told:
        yield Sign(source="/accuracy", told=f"{len(told['scopes'])} scopes", says="ppd-proxy")


def _refused_accuracy(message: str) -> Iterator[Sign]:
    if "accuracy is not checked" in message:
        yield Sign(source="/accuracy", told="a ppd-proxy without a baseline", says="ppd-proxy")


def _metrics(page: str) -> Iterator[Sign]:
    try:
        values = _totals(page)
    except ValueError as error:
        yield Sign(source="/metrics", told=f"not readable: {error}")
        return
    for told, role in signs_of(values):
        yield Sign(source="/metrics", told=told, says=role)


def _totals(page: str) -> Totals:
    """Sums by name and by the one label value that says something here."""
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            label = sample.labels.get("direction") or sample.labels.get("source") or ""
            values[sample.name, label] = values.get((sample.name, label), 0.0) + sample.value
    return values


async def _ask(engine: Engine) -> Sign:
    """One token, with the offer that another engine decodes on."""
    question = Question(prompt="Name a river. " * 16, extra=dict(HELD_FOR_ANOTHER))
    try:
        path, body = question.body("completions", await engine.model(), _ONE)
        answer = await engine.post(path, body)
    except EngineTrouble as trouble:
        return Sign(source="/v1/completions", told=f"nothing: {trouble}")
    if is_held_for_another(answer):
        what = "it holds KV for another engine when asked to: a connector that can prefill"
    else:
        what = "it handed nothing over when asked to: no NIXL connector, or a proxy before it"
    return Sign(source=path, told=what)


_ONE = Sampling(temperature=0.0, top_p=1.0, seed=42, max_tokens=1, top_k=1)
_PATHS = (
    ("/version", _version),
    ("/v1/models", _models),
    ("/metrics", _metrics),
    ("/accuracy", _accuracy),
    ("/engines", _proxy_engines),
    ("/sim/state", _simulated),
    ("/server_info?config_format=json", _vllm_config),
    ("/get_server_info", _sglang_config),
)
