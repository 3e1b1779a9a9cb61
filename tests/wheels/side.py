"""One engine of a split cluster around a release's modules: scheduler side, worker side, threads that end."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import msgpack
import zmq
from tests.wheels.releases import Release
from tests.wheels.stubs import Poison, Role, Tensor, tensor

BLOCK = 4
NUM_BLOCKS = 8
HEADS = 3
LAYERS = ("0", "1")
LONG_S = 20.0
"""A limit that no test reaches unless it fails."""
SHORT_S = 0.05
"""A limit that a test waits for."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peer:
    """A raw DEALER that talks to an engine's listener, under an identity of its own."""

    def __init__(self, context: zmq.Context, address: str, identity: bytes = b"stranger:1"):
        self.identity = identity
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.RCVTIMEO, int(LONG_S * 1000))
        self.socket.connect(f"tcp://{address}")

    def send(self, message) -> None:
        self.socket.send(message if isinstance(message, bytes) else msgpack.dumps(message))

    def ask(self, message) -> bytes:
        self.send(message)
        return self.socket.recv()

    def join(self) -> None:
        """Send NEW with a unique id that no real communicator has."""
        self.send({"cmd": "NEW", "unique_id": b"u" * 128})


class Side:
    """A prefill or a decode engine: the connector as the scheduler and as the worker use it."""

    def __init__(self, release: Release, producer: bool, timeout_s: float = LONG_S, **extra):
        self.release = release
        port = free_port()
        extra = {"timeout_s": timeout_s, "send_type": "PUT_ASYNC", "http_port": "8000", **extra}
        shape = (NUM_BLOCKS, 2, BLOCK, HEADS) if release.blocks_first else (2, NUM_BLOCKS, BLOCK, HEADS)
        self.caches = {name: tensor([[[[0.0] * HEADS] * BLOCK] * shape[1]] * shape[0]) for name in LAYERS}
        held = {name: [kv] if release.cache_per_virtual_engine else kv for name, kv in self.caches.items()}
        self.layers = {name: SimpleNamespace(kv_cache=kv) for name, kv in held.items()}
        self.layers["moe"] = SimpleNamespace()  # a layer without a cache
        if release.version in ("0.9.2", "0.10.0"):
            del self.layers["moe"]  # these releases do not know such layers
        transfer = SimpleNamespace(
            is_kv_producer=producer, kv_port=port, kv_buffer_size=1e9, kv_connector_extra_config=extra,
            get_from_extra_config=lambda name, default: extra.get(name, default),
        )  # fmt: skip
        config = SimpleNamespace(
            kv_transfer_config=transfer, cache_config=SimpleNamespace(block_size=BLOCK),
            compilation_config=SimpleNamespace(static_forward_context=self.layers),
        )  # fmt: skip
        arguments = () if "KVCacheConfig" not in release.source else (None,)
        self.scheduler = release.connector.P2pNcclConnector(config, Role.SCHEDULER, *arguments)
        self.worker = release.connector.P2pNcclConnector(config, Role.WORKER, *arguments)
        self.engine = self.worker.p2p_nccl_engine
        self.address = f"127.0.0.1:{port}"

    def close(self) -> None:
        """End the threads, then the sockets."""
        engine = self.engine
        engine.poller.stopped.set()
        engine._listener_thread.join(LONG_S)
        if engine.send_type == "PUT_ASYNC":
            with engine.send_queue_cv:
                engine.send_queue.appendleft(Poison())
                engine.send_queue_cv.notify_all()
            engine._send_thread.join(LONG_S)
        if engine._ping_thread is not None:
            engine._ping_thread.join(LONG_S)
        engine.context.destroy(linger=0)

    @property
    def send(self):
        """The method that sends one tensor and waits for the answer."""
        if self.release.version == "0.9.2":
            return self.engine._send_sync
        return lambda tensor_id, sent, address: self.engine.send_sync(self.item(tensor_id, sent, address))

    @property
    def connect(self):
        """The method that connects to a peer."""
        return getattr(self.engine, "_create_connect" if self.release.version == "0.9.2" else "create_connect")

    def item(self, tensor_id: str, sent: Tensor, address: str):
        """What the queue of the sending thread holds."""
        if self.release.version == "0.9.2":
            return [tensor_id, address, sent]
        kind = self.release.engine.SendQueueItem
        if "slot_mapping" in kind.__annotations__:
            return kind(tensor_id, address, sent, tensor([0, 1]), True)
        return kind(tensor_id, address, sent)

    def fill(self) -> None:
        """Give every position of the caches its own value."""
        for number, cache in enumerate(self.caches.values()):
            cache[...] = tensor(range(cache.numel())).reshape(cache.shape) + 1000 * (number + 1)

    def tokens(self, layer: str, blocks: list[int], count: int) -> list:
        """Keys and values of the first `count` tokens in these blocks, in order."""
        cache = self.caches[layer] if self.release.blocks_first else self.caches[layer].swapaxes(0, 1)
        return [cache[blocks[i // BLOCK], :, i % BLOCK].tolist() for i in range(count)]

    def matched(self, request_id: str, num_tokens: int, num_computed: int = 0):
        request = SimpleNamespace(request_id=request_id, prompt_token_ids=list(range(num_tokens)))
        return self.scheduler.get_num_new_matched_tokens(request, num_computed)

    def schedule(self, request_id: str, blocks: list[int], num_tokens: int, num_computed: int = 0, chunk: int = 0):
        """The step in which a new request gets its blocks; `chunk` limits the tokens computed in it."""
        external, _ = self.matched(request_id, num_tokens, num_computed)
        request = SimpleNamespace(request_id=request_id, prompt_token_ids=list(range(num_tokens)))
        self.scheduler.update_state_after_alloc(request, SimpleNamespace(get_block_ids=lambda: (blocks,)), external)
        new = SimpleNamespace(
            req_id=request_id, prompt_token_ids=list(range(num_tokens)), block_ids=(blocks,),
            num_computed_tokens=num_computed + external,
        )  # fmt: skip
        scheduled = chunk or num_tokens - num_computed - external
        return self._step([new], [], {request_id: scheduled})

    def schedule_again(self, request_id: str, num_computed: int, num_scheduled: int, new_blocks=None):
        """A later step of a running request."""
        return self._step([], [(request_id, num_computed, new_blocks)], {request_id: num_scheduled})

    def _step(self, new, cached, scheduled):
        meta = self.scheduler.build_connector_meta(
            SimpleNamespace(
                scheduled_new_reqs=new, num_scheduled_tokens=scheduled,
                scheduled_cached_reqs=SimpleNamespace(
                    req_ids=[row[0] for row in cached], num_computed_tokens=[row[1] for row in cached],
                    new_block_ids=[row[2] for row in cached], resumed_from_preemption=[False for _ in cached],
                    resumed_req_ids=set(),
                ),
            )
        )  # fmt: skip
        self.worker.bind_connector_metadata(meta)
        return meta

    def load(self) -> None:
        """The decode side of a forward pass."""
        context = SimpleNamespace(attn_metadata=object(), no_compile_layers=self.layers, virtual_engine=0)
        self.worker.start_load_kv(context)

    def save(self) -> None:
        """The prefill side of a forward pass."""
        for name, cache in self.caches.items():
            self.worker.save_kv_layer(name, cache, object())
        self.worker.wait_for_save()
