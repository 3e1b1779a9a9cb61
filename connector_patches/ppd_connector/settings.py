"""What `--kv-transfer-config` says, checked once at start: every mistake names the key, its value and what is right.

The names are P2pNccl's where it had one. Knows vLLM's config objects by attribute only, so it can be read without vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ppd_connector import faults

SendType = Literal["PUT", "PUT_ASYNC", "GET"]
Transport = Literal["tcp", "nccl"]
Role = Literal["kv_producer", "kv_consumer", "kv_both"]

_KNOWN = frozenset(
    "proxy_ip proxy_port http_port send_type kv_buffer_size transport timeout_s lease_s fence_s checksum dump_dir"
    " dump_share fault kv_ip nccl_num_channels mem_pool_size_gb".split()
)
DEFAULT_BUFFER_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`kv_port` is rank 0's; every tensor-parallel rank adds its own. `_s` are seconds.

    - `timeout_s`: the longest wait without progress for a peer. `fence_s`: how long a peer that cost such a wait is
      left alone. `lease_s`: how long KV is kept for a peer that does not fetch or use it.
    - `buffer_bytes`: bound on received KV that waits for its request (consumer), on KV that is under way (producer),
      and on what is held for GET (producer).
    - `proxy`: `host:port` to announce to, None for no announcements.
    - `is_checksummed`: on where the extra config does not say; off over NCCL, where it costs both
      engines a copy of every payload to host memory.
    - `fault`: a specification or the path of a file with one (`ppd_connector.faults`).
    """

    role: Role
    kv_port: int
    kv_ip: str | None = None
    proxy: str | None = None
    http_port: int | None = None
    send_type: SendType = "PUT_ASYNC"
    transport: Transport = "tcp"
    buffer_bytes: int = DEFAULT_BUFFER_BYTES
    timeout_s: float = 30.0
    lease_s: float = 30.0
    fence_s: float = 10.0
    is_checksummed: bool = True
    dump_dir: Path | None = None
    dump_share: float = 1.0
    fault: str = ""
    nccl_num_channels: str = "8"

    @property
    def is_producer(self) -> bool:
        return self.role != "kv_consumer"

    @property
    def is_consumer(self) -> bool:
        return self.role != "kv_producer"


def read_settings(transfer: Any) -> Settings:
    """Read vLLM's `KVTransferConfig`; ValueError names every mistake at once."""
    extra: Mapping[str, Any] = transfer.kv_connector_extra_config or {}
    reader = _Reader(extra)
    reader.refuse_unknown()
    host = extra.get("proxy_ip") or ""
    proxy_port = reader.integer("proxy_port", 0, least=0, most=65535)
    proxy = f"{host}:{proxy_port}" if host and proxy_port else None
    http_port = reader.integer("http_port", 0, least=1, most=65535) or None
    if proxy is not None and http_port is None:
        reader.mistakes.append(f"http_port is missing; with proxy_ip {host!r} it must be the engine's own HTTP port")
    dump_dir = extra.get("dump_dir")
    settings = Settings(
        role=cast("Role", transfer.kv_role),
        kv_port=reader.port(transfer.kv_port),
        kv_ip=extra.get("kv_ip") or None,
        proxy=proxy,
        http_port=http_port,
        send_type=cast("SendType", reader.word("send_type", "PUT_ASYNC", get_args(SendType))),
        transport=cast("Transport", reader.word("transport", "tcp", get_args(Transport))),
        buffer_bytes=reader.buffer_bytes(getattr(transfer, "kv_buffer_size", None)),
        timeout_s=reader.number("timeout_s", 30.0, above=0),
        lease_s=reader.number("lease_s", 30.0, above=0),
        fence_s=reader.number("fence_s", 10.0, least=0),
        is_checksummed=reader.switch("checksum", extra.get("transport") != "nccl"),
        dump_dir=Path(dump_dir) if dump_dir else None,
        dump_share=reader.number("dump_share", 1.0, least=0, most=1),
        fault=reader.fault(),
        nccl_num_channels=str(extra.get("nccl_num_channels", "8")),
    )
    if reader.mistakes:
        raise ValueError("kv-transfer-config of PPDConnector: " + "; ".join(reader.mistakes))
    return settings


class _Reader:
    """Takes values out of the extra config and collects what is wrong with them."""

    def __init__(self, extra: Mapping[str, Any]) -> None:
        self._extra = extra
        self.mistakes: list[str] = []

    def refuse_unknown(self) -> None:
        for name in sorted(set(self._extra) - _KNOWN):
            known = ", ".join(sorted(_KNOWN))
            self.mistakes.append(f"{name} is no key of kv_connector_extra_config; known are {known}")

    def port(self, value: object) -> int:
        try:
            port = int(str(value))
        except ValueError:
            port = 0
        if not 1 <= port <= 65535:
            self.mistakes.append(f"kv_port is {value!r}; it must be a port from 1 to 65535")
        return port

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        try:
            number = int(str(value))
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            self.mistakes.append(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
        return number

    def number(
        self, name: str, default: float, *, above: float | None = None, least: float | None = None, most: float = 1e18
    ) -> float:
        value = self._extra.get(name, default)
        lowest = f"above {above:g}" if above is not None else f"at least {least:g}"
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        is_low = not number > above if above is not None else not number >= (least or 0.0)
        if is_low or not number <= most:
            limit = "" if most == 1e18 else f" and at most {most:g}"
            self.mistakes.append(f"{name} is {value!r}; it must be a number {lowest}{limit}")
        return number

    def word(self, name: str, default: str, known: tuple[str, ...]) -> str:
        value = self._extra.get(name, default)
        if value not in known:
            self.mistakes.append(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        return str(value)

    def switch(self, name: str, default: bool) -> bool:
        value = self._extra.get(name, default)
        words = {True: True, False: False, "true": True, "false": False, "xxh3": True, "none": False}
        if not isinstance(value, bool | str) or value not in words:
            self.mistakes.append(f'{name} is {value!r}; it must be true ("xxh3") or false ("none")')
            return default
        return words[value]

    def buffer_bytes(self, top_level: object) -> int:
        """`kv_buffer_size` (bytes, also `1e9`): in the extra config, or at top level where vLLM has it there."""
        value = self._extra.get("kv_buffer_size", top_level)
        if value is None:
            return DEFAULT_BUFFER_BYTES
        try:
            number = int(float(str(value)))
        except (ValueError, OverflowError):
            number = 0
        if number < 1:
            self.mistakes.append(f"kv_buffer_size is {value!r}; it must be a number of bytes above 0, for example 1e9")
        return number

    def fault(self) -> str:
        value = self._extra.get("fault") or ""
        try:
            faults.check_source(value)
        except ValueError as error:
            self.mistakes.append(str(error))
        return str(value)
