"""Faults on purpose, to prove that accuracy checks see them: what may be asked for, when it strikes, what it does.

Off by default and loud when on. A specification is a list of `name[:value][@probability]` separated by commas, for
example `bitflip:0.001@0.05`; the probability is per request, 1 where it is left out. A setting with a slash in it names
a file that holds a specification (or nothing) and is read again for every request. Whether a fault strikes a request
follows from the request's key alone, so that a run can be repeated.

KV faults strike on the decode engine, after the checksum was verified: they stand for errors that it cannot see.
`wire_bitflip` strikes before it. `throttle` strikes where KV is sent.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ppd_connector.elements import HIGH_BITS, RAW_TYPES, Raw, Values, e4m3_values, from_float32, to_e4m3, to_float32
from ppd_connector.geometry import LayerShape
from ppd_connector.inbox import Part
from ppd_connector.plan import Load

_log = logging.getLogger("ppd_connector")

KV_FAULTS = ("bitflip", "layer_swap", "block_shift", "stale", "zero_tail", "fp8", "scale")
NAMES = (*KV_FAULTS, "wire_bitflip", "throttle")
_TAKES_VALUE = MappingProxyType(
    {"bitflip": "share of elements, 0 to 1", "scale": "factor", "throttle": "bytes per second"}
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One item of a specification; `value` is None for faults that take none."""

    name: str
    value: float | None
    probability: float

    def strikes(self, key: str) -> bool:
        return np.random.default_rng(_seed(key, self.name)).random() < self.probability


@dataclass(frozen=True, slots=True)
class Drawn:
    """The faults that strike one request."""

    key: str = ""
    faults: tuple[Fault, ...] = ()

    @property
    def changes_kv(self) -> bool:
        return any(fault.name in KV_FAULTS for fault in self.faults)

    @property
    def flips_on_the_wire(self) -> bool:
        return any(fault.name == "wire_bitflip" for fault in self.faults)

    @property
    def bytes_per_s(self) -> float | None:
        return next((fault.value for fault in self.faults if fault.name == "throttle"), None)


def parse(text: str) -> tuple[Fault, ...]:
    """Read a specification; ValueError names the item and what is right."""
    faults = []
    for item in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        rest, _, probability = item.partition("@")
        name, _, value = rest.partition(":")
        if name not in NAMES:
            raise ValueError(f"fault is {item!r}: {name!r} is none of {', '.join(NAMES)}")
        number = _number(item, value, _TAKES_VALUE[name]) if name in _TAKES_VALUE else None
        if name not in _TAKES_VALUE and value:
            raise ValueError(f"fault is {item!r}: {name} takes no value")
        chance = _number(item, probability, "probability, 0 to 1") if probability else 1.0
        if not 0 <= chance <= 1:
            raise ValueError(f"fault is {item!r}: the probability must be from 0 to 1")
        if name == "bitflip" and not 0 < (number or 0) <= 1:
            raise ValueError(f"fault is {item!r}: bitflip takes a share of elements above 0 and at most 1")
        if name == "throttle" and not (number or 0) > 0:
            raise ValueError(f"fault is {item!r}: throttle takes bytes per second above 0")
        faults.append(Fault(name, number, chance))
    return tuple(faults)


def _number(item: str, text: str, meaning: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"fault is {item!r}: a number ({meaning}) must follow") from None


def check_source(value: object) -> None:
    """Raise ValueError unless `value` is a specification or a path."""
    if not isinstance(value, str):
        raise ValueError(f"fault is {value!r}; it must be a specification or the path of a file with one")
    if "/" not in value:
        parse(value)


class FaultSource:
    """Where the specification comes from; says so in the log whenever it changes."""

    def __init__(self, source: str) -> None:
        self._path = Path(source) if "/" in source else None
        self._text = ""
        self._faults: tuple[Fault, ...] = ()
        if self._path is None:
            self._take(source)

    @property
    def wants_stale(self) -> bool:
        """`stale` may strike, so every request's KV has to be kept until the next one."""
        return any(fault.name == "stale" for fault in self._faults)

    def draw(self, key: str) -> Drawn:
        """The faults that strike the request with this transfer key."""
        if self._path is not None:
            try:
                text = self._path.read_text()
            except OSError:
                text = ""
            if text != self._text:
                self._take(text)
        return Drawn(key, tuple(fault for fault in self._faults if fault.strikes(key))) if self._faults else Drawn()

    def _take(self, text: str) -> None:
        self._text = text
        try:
            self._faults = parse(text)
        except ValueError as error:
            self._faults = ()
            _log.error("FAULT INJECTION: %s; no fault is on", error)
            return
        if self._faults:
            _log.warning("FAULT INJECTION IS ON: %s. Answers of this engine are wrong on purpose.", text.strip())
        elif text or self._path is not None:
            _log.warning("fault injection is off")


def apply(
    drawn: Drawn, layers: list[list[Raw]], dtypes: list[str], block_tokens: int, stale: list[list[Raw]] | None
) -> list[list[Raw]]:
    """The KV as it arrives under the drawn faults, and a line in the log about each.

    `layers` holds for every layer its planes [heads, tokens, channels] as raw integers, which are not changed; `stale`
    is the same of the request before, None for the first.
    """
    for fault in drawn.faults:
        if fault.name in KV_FAULTS:
            layers, what = _apply(fault, drawn.key, layers, dtypes, block_tokens, stale)
            _log.warning("FAULT INJECTED key=%s %s: %s", drawn.key, fault.name, what)
    return layers


def _apply(
    fault: Fault,
    key: str,
    layers: list[list[Raw]],
    dtypes: list[str],
    block_tokens: int,
    stale: list[list[Raw]] | None,
) -> tuple[list[list[Raw]], str]:
    tokens = layers[0][0].shape[1]
    if fault.name == "bitflip":
        return _bitflip(fault.value or 0.0, key, layers, dtypes)
    if fault.name == "layer_swap":
        if len(layers) < 2:
            return layers, "there is one layer only"
        middle = (len(layers) - 1) // 2
        order = [*range(middle), middle + 1, middle, *range(middle + 2, len(layers))]
        return [layers[index] for index in order], f"layers {middle} and {middle + 1}"
    if fault.name == "block_shift":
        if tokens <= block_tokens:
            return layers, f"{tokens} tokens are one block"
        return _each(layers, lambda plane: _shifted(plane, block_tokens)), f"{tokens} tokens, blocks of {block_tokens}"
    if fault.name == "stale":
        if stale is None:
            return layers, "there is no request before this one"
        return [
            [_overlaid(plane, old) for plane, old in zip(planes, olds, strict=True)]
            for planes, olds in zip(layers, stale, strict=True)
        ], f"the first {min(tokens, stale[0][0].shape[1])} tokens"
    if fault.name == "zero_tail":
        tail = max(1, tokens // 4)
        return _each(layers, lambda plane: _zeroed(plane, tail)), f"the last {tail} of {tokens} tokens"
    factor = np.float32(fault.value or 0.0)
    change: Callable[[Values], Values] = _through_fp8 if fault.name == "fp8" else lambda values: values * factor
    changed = [
        [from_float32(change(to_float32(plane, dtype)), dtype) for plane in planes]
        for planes, dtype in zip(layers, dtypes, strict=True)
    ]
    return changed, f"{tokens} tokens" + (f" by {fault.value}" if fault.name == "scale" else "")


def flip_bit(payload: memoryview, key: str) -> memoryview:
    """A copy of the payload with one bit of it turned over."""
    changed = bytearray(payload)
    position = int(np.random.default_rng(_seed(key, "wire_bitflip")).integers(len(changed) * 8))
    changed[position // 8] ^= 1 << position % 8
    _log.warning("FAULT INJECTED key=%s wire_bitflip: bit %d", key, position)
    return memoryview(changed)


def _seed(key: str, name: str) -> tuple[int, int]:
    return int(key, 16), zlib.crc32(name.encode())


def _each(layers: list[list[Raw]], change: Callable[[Raw], Raw]) -> list[list[Raw]]:
    return [[change(plane) for plane in planes] for planes in layers]


def _bitflip(share: float, key: str, layers: list[list[Raw]], dtypes: list[str]) -> tuple[list[list[Raw]], str]:
    generator = np.random.default_rng(_seed(key, "bitflip value"))
    flipped, total = [], 0
    for planes, dtype in zip(layers, dtypes, strict=True):
        low, high = HIGH_BITS[dtype]
        changed_planes = []
        for plane in planes:
            changed = plane.copy()
            flat = changed.reshape(-1)
            count = int(generator.binomial(flat.size, share))
            where = generator.choice(flat.size, size=count, replace=False)
            bits = generator.integers(low, high, size=count)
            flat[where] ^= (np.ones(count, np.uint32) << bits.astype(np.uint32)).astype(flat.dtype)
            total += count
            changed_planes.append(changed)
        flipped.append(changed_planes)
    return flipped, f"{total} bits"


def _shifted(plane: Raw, block_tokens: int) -> Raw:
    changed = plane.copy()
    changed[:, :-block_tokens] = plane[:, block_tokens:]
    return changed


def _overlaid(plane: Raw, old: Raw) -> Raw:
    changed = plane.copy()
    tokens = min(plane.shape[1], old.shape[1])
    changed[:, :tokens] = old[:, :tokens]
    return changed


def _zeroed(plane: Raw, tail: int) -> Raw:
    changed = plane.copy()
    changed[:, -tail:] = 0
    return changed


def _through_fp8(values: Values) -> Values:
    return e4m3_values()[to_e4m3(values)]


def whole_planes(shape: LayerShape, layer: int, pieces: list[tuple[Part, memoryview]], load: Load) -> list[Raw]:
    """One layer's planes [heads, tokens, channels] of all the load's tokens, put together from its parts."""
    first, tokens = load.first_token, load.end_token - load.first_token
    raw = RAW_TYPES[shape.dtype]
    planes = [np.empty((shape.heads, tokens, channels), raw) for channels in shape.channels]
    for part, payload in (each for each in pieces if each[0].layer == layer):
        flat = np.frombuffer(payload, raw)
        count, offset = part.end_token - part.first_token, 0
        start, end = max(part.first_token, first), min(part.end_token, load.end_token)
        if start >= end:
            continue
        for plane, channels in zip(planes, shape.channels, strict=True):
            size = shape.heads * count * channels
            piece = flat[offset : offset + size].reshape(shape.heads, count, channels)
            plane[:, start - first : end - first] = piece[:, start - part.first_token : end - part.first_token]
            offset += size
    return planes
