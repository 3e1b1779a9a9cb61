"""The worker's half on the engine's thread: what a step saves and loads, and what the scheduler has to hear of it.

Owns the rank's endpoint and everything behind it. Knows vLLM's objects by attribute only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ppd_connector.announcer import Announcer
from ppd_connector.courier import Courier
from ppd_connector.dumps import Dumper
from ppd_connector.endpoint import Endpoint
from ppd_connector.faults import FaultSource
from ppd_connector.figures import Figures, RequestFigures
from ppd_connector.kv_cache import KvCache
from ppd_connector.plan import Load, Save, Step, Unneeded
from ppd_connector.receiver import Receiver
from ppd_connector.scheduling import side_of
from ppd_connector.sender import Sender
from ppd_connector.settings import Settings
from ppd_connector.transport import Nccl, open_nccl
from ppd_connector.versions import CONNECTOR_VERSION
from ppd_connector.wire import announcement, parse_tag

_log = logging.getLogger("ppd_connector")


@dataclass(slots=True)
class _Saved:
    """How far one save of the step is."""

    save: Save
    layers: set[int] = field(default_factory=set)
    is_given_up: bool = False


class Worker:
    """One rank. `start` once the caches are known; per step `prepare`, `begin`, saves and `collect`; `stop` at last."""

    def __init__(self, settings: Settings, *, host: str, rank: int) -> None:
        self._settings = settings
        self._host = host
        self._rank = rank
        self._address = f"{host}:{settings.kv_port}"
        self._figures = Figures()
        self._store: KvCache | None = None
        self._nccl: Nccl | None = None
        self._endpoint: Endpoint | None = None
        self._sender: Sender | None = None
        self._receiver: Receiver | None = None
        self._dumper: Dumper | None = None
        self._announcer: Announcer | None = None
        self._saving: list[_Saved] = []
        self._failed_blocks: set[int] = set()
        self._told_held = {"recv": 0, "send": 0}
        self._lock = threading.Lock()
        self._request_figures: dict[str, RequestFigures] = {}

    def start(self, store: KvCache) -> None:
        """Listen, and announce the engine. Raises zmq.ZMQError when the address is taken, ValueError when the payloads
        are to take NCCL and cannot."""
        settings, rank = self._settings, self._rank
        self._store = store
        self._nccl = open_nccl(store, settings)
        if settings.dump_dir is not None:
            self._dumper = Dumper(settings.dump_dir, store, rank=rank)
        self._endpoint = Endpoint(self._host, settings.kv_port + rank, self._courier)
        self._endpoint.start()
        if settings.proxy is not None and rank == 0:
            told = announcement(
                "P" if settings.is_producer else "D",
                f"{self._host}:{settings.http_port}",
                self._address,
                ppd=True,
                connector_version=CONNECTOR_VERSION,
                role="both" if settings.role == "kv_both" else None,
            )
            self._announcer = Announcer(settings.proxy, told)
            self._announcer.start()
        _log.info(
            "PPDConnector %s listens on %s:%d: %s, %s over %s, %d layers, %d bytes per token",
            CONNECTOR_VERSION,
            self._host,
            self._endpoint.port,
            settings.role,
            settings.send_type,
            settings.transport,
            len(store.geometry.layers),
            store.geometry.bytes_per_token,
        )

    def _courier(self, endpoint: Endpoint) -> Courier:
        settings, store = self._settings, self._store
        assert store is not None
        source = FaultSource(settings.fault)
        if settings.is_producer:
            self._sender = Sender(
                endpoint,
                store,
                settings,
                self._figures,
                source,
                rank=self._rank,
                own_address=self._address,
                nccl=self._nccl,
            )
        if settings.is_consumer:
            self._receiver = Receiver(
                endpoint,
                store,
                settings,
                self._figures,
                source,
                rank=self._rank,
                own_address=self._address,
                on_loaded=self._loaded,
                on_figures=self._request_cost,
                nccl=self._nccl,
            )
        return Courier(self._sender, self._receiver)

    def stop(self) -> None:
        """Close everything; may be called more than once."""
        for half in (self._sender, self._receiver):
            if half is not None:
                half.close()
        for each in (self._announcer, self._endpoint, self._dumper):
            if each is not None:
                each.stop()
        self._announcer = self._endpoint = self._dumper = None

    # A step

    def prepare(self, step: Step) -> None:
        """Before the forward: the layers it writes are to be saved as they come."""
        self._saving = [_Saved(save) for save in step.saves if self._settings.send_type != "GET"]

    def begin(self, step: Step) -> None:
        """Hand the step's work to the endpoint's thread; nothing here waits. vLLM may call it after the forward."""
        endpoint, sender, receiver = self._endpoint, self._sender, self._receiver
        if endpoint is None:
            return
        for _ in range(step.malformed):
            self._figures.failed("recv", "unknown", "malformed_tag")
        if sender is not None:
            if step.held:
                endpoint.call(lambda now: sender.hold(step.held, now))
            if step.dropped:
                endpoint.call(lambda now: sender.drop(step.dropped))
        if receiver is not None:
            for load in step.loads:
                endpoint.call(partial(receiver.load, load))
            for each in step.unneeded:
                endpoint.call(partial(_release, receiver, each))

    def save_layer(self, name: str) -> None:
        """The step's forward has written this layer."""
        store = self._store
        if self._saving and store is not None and name in store.layer_of:
            self._save(store.layer_of[name])

    def _save(self, layer: int) -> None:
        assert self._store is not None
        assert self._sender is not None
        for saved in self._saving:
            if layer in saved.layers or saved.is_given_up:
                continue
            saved.layers.add(layer)
            is_last = saved.save.is_last and len(saved.layers) == len(self._store.geometry.layers)
            try:
                self._sender.put(saved.save, layer, is_last=is_last)
            except (TimeoutError, MemoryError) as error:
                saved.is_given_up = True
                _log.warning("%s", error)

    def end(self, step: Step) -> None:
        """The forward is over: save the layers that no hook was called for, offer what is kept, dump."""
        store, sender, endpoint = self._store, self._sender, self._endpoint
        if store is None or endpoint is None or sender is None:
            return
        if self._saving:
            for layer in range(len(store.geometry.layers)):
                self._save(layer)
            self._saving = []
            if self._settings.send_type == "PUT" and not sender.wait_until_sent():
                _log.warning("KV was not acknowledged within %s s", self._settings.timeout_s)
        for save in step.saves:
            if self._settings.send_type == "GET":
                if self._is_cuda:
                    torch.cuda.current_stream(store.device).synchronize()
                endpoint.call(partial(sender.offer, save))
            if save.token_ids and self._dumper is not None:
                self._dumper.dump(save.key, save.blocks, save.token_ids, side="prefill")

    @property
    def _is_cuda(self) -> bool:
        return self._store is not None and self._store.device.type == "cuda"

    def collect(self, finished_request_ids: set[str]) -> tuple[set[str], set[str]]:
        """Requests whose blocks were sent, and whose loads are over, since the last step."""
        endpoint, sender, receiver = self._endpoint, self._sender, self._receiver
        if endpoint is None:
            return set(), set()
        for request_id in finished_request_ids:
            self._forget(request_id)
        sent: set[str] = set()
        while sender is not None and sender.finished:
            sent.add(sender.finished.popleft())
        loaded: set[str] = set()
        while receiver is not None and receiver.results:
            result = receiver.results.popleft()
            loaded.add(result.request_id)
            self._failed_blocks.update(result.failed_blocks)
        return sent, loaded

    def _forget(self, request_id: str) -> None:
        tag = parse_tag(request_id)
        endpoint, sender, receiver = self._endpoint, self._sender, self._receiver
        if tag is None or endpoint is None:
            return
        side = side_of(tag, self._settings, self._address)
        if side == "decode" and receiver is not None:
            endpoint.call(lambda now: receiver.release(request_id, tag.key, tag.prefill))
        elif side == "prefill" and sender is not None:
            endpoint.call(lambda now: sender.ended(tag.key, tag.decode))

    def take_failed_blocks(self) -> set[int]:
        """Blocks of the loads that `collect` reported last and that failed."""
        failed, self._failed_blocks = self._failed_blocks, set()
        return failed

    # What the step cost

    def take_figures(self) -> Mapping[str, Any] | None:
        """What `PPDStats` holds, None when there is nothing new to tell."""
        held = {
            "recv": self._receiver.held_bytes if self._receiver is not None else 0,
            "send": self._sender.held_bytes if self._sender is not None else 0,
        }
        taken = self._figures.take()
        if taken is None and held == self._told_held:
            return None
        self._told_held = held
        return {**(taken or {"moved": [], "failed": []}), "held": list(held.items())}

    def take_request_figures(self) -> dict[str, RequestFigures]:
        with self._lock:
            taken, self._request_figures = self._request_figures, {}
        return taken

    def _request_cost(self, request_id: str, figures: RequestFigures) -> None:
        with self._lock:
            self._request_figures[request_id] = figures

    def _loaded(self, load: Load) -> None:
        if load.token_ids and self._dumper is not None:
            self._dumper.dump(load.key, load.blocks, load.token_ids, side="decode")


def _release(receiver: Receiver, each: Unneeded, now: float) -> None:
    receiver.release("", each.key, each.peer, each.reason)
