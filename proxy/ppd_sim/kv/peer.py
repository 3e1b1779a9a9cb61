"""The decode side of a handoff: asking a prefill engine for the KV it holds, over HTTP between simulated engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

PULL_PATH: Final = "/sim/kv/pull"
FREE_PATH: Final = "/sim/kv/free"
RENEW_PATH: Final = "/sim/kv/renew"
_NIXL_FIELDS: Final = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port", "remote_block_ids")


class TransferFailed(Exception):
    """The KV is not there or cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteKv:
    """Where one prompt's KV lies. `block_ids` is None for P2pNccl, whose engines agree on the key alone."""

    address: str
    key: str
    engine_id: str | None = None
    block_ids: tuple[int, ...] | None = None
    cached_tokens: int | None = None

    @classmethod
    def from_nixl(cls, params: dict[str, Any]) -> RemoteKv | None:
        """None when a field is missing: vLLM logs a warning and prefills locally."""
        if any(params.get(name) is None for name in _NIXL_FIELDS):
            return None
        cached = params.get("remote_prefill_cached_tokens")
        return cls(
            address=f"{params['remote_host']}:{params['remote_port']}",
            key=str(params["remote_request_id"]),
            engine_id=str(params["remote_engine_id"]),
            block_ids=tuple(params["remote_block_ids"][0]) if params["remote_block_ids"] else (),
            cached_tokens=cached if isinstance(cached, int) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What came over: the digest of the token ids it belongs to and their number."""

    digest: str
    num_tokens: int


class Peers:
    """HTTP to other simulated engines; one session per engine, opened on first use."""

    def __init__(self, timeout_s: float = 10.0) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def pull(self, remote: RemoteKv) -> Pulled:
        """Take the prompt's KV; `TransferFailed` when the other engine does not hold it or does not answer."""
        body = {"key": remote.key, "engine_id": remote.engine_id, "block_ids": remote.block_ids}
        status, answer = await self._post(remote.address, PULL_PATH, body)
        if status != 200:
            raise TransferFailed(f"{remote.address} does not hold {remote.key}: {answer.get('error', status)}")
        return Pulled(digest=answer["digest"], num_tokens=answer["num_tokens"])

    async def free(self, remote: RemoteKv) -> None:
        """Tell the other engine that nobody will read its blocks."""
        await self._post(remote.address, FREE_PATH, {"key": remote.key})

    async def renew(self, remote: RemoteKv) -> None:
        """Keep the lease alive while the request waits here."""
        await self._post(remote.address, RENEW_PATH, {"key": remote.key})

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, address: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(f"http://{address}{path}", data=msgspec.json.encode(body)) as response:
                return response.status, msgspec.json.decode(await response.read())
        except (TimeoutError, aiohttp.ClientError, msgspec.DecodeError, ValueError) as error:
            raise TransferFailed(f"{address} cannot be reached: {error!r}") from error
