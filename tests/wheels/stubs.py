"""Stand-ins for what the in-tree connector imports: torch on numpy, NCCL on queues, names of vLLM.

- torch: `Tensor` is a numpy array with torch's method names; streams and devices do nothing; a tensor above
  `MEMORY_LIMIT` elements raises `torch.cuda.OutOfMemoryError`.
- NCCL: a communicator is a pair of queues found by its unique id. `ncclSend` and `ncclRecv` copy through them. Joining
  does not wait for the other side, as the real one does.
- `TensorMemoryPool`: a dict.
- vLLM's connector base: binding of metadata and nothing else.
- zmq, threading, time: the real ones, but every thread of an engine can be ended: the poller can be stopped, and
  `time.sleep`, which only the announcing thread calls, ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import queue
import re
import threading  # noqa: TID251  the code under test runs in threads
import time
from collections import defaultdict
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import zmq

MEMORY_LIMIT = 1 << 24
_PYNCCL = "vllm.distributed.device_communicators.pynccl_wrapper"
_V1 = "vllm.distributed.kv_transfer.kv_connector.v1"


@dataclass(frozen=True)
class Device:
    """Every tensor is on the one device."""

    name: str = "cuda:0"
    index: int = 0


class Tensor(np.ndarray):
    """A numpy array with the torch methods that the connector uses."""

    device = Device()

    def __repr__(self):
        return f"tensor({self.tolist()})"

    def size(self):
        return self.shape

    def numel(self):
        return int(np.prod(self.shape))

    def element_size(self):
        return self.itemsize

    def data_ptr(self):
        return self.ctypes.data

    def to(self, _device):
        return np.ascontiguousarray(self).view(Tensor)


def tensor(values: Any) -> Tensor:
    """Whole numbers stay whole, as in torch; the rest is float32."""
    made = np.array(values)
    return (made if made.dtype.kind == "i" else made.astype(np.float32)).view(Tensor)


class OutOfMemoryError(RuntimeError):
    """`torch.cuda.OutOfMemoryError`."""


def _empty(shape, dtype, device):
    if not issubclass(dtype, np.generic):
        raise TypeError(f"not a dtype: {dtype}")
    if np.prod(shape) > MEMORY_LIMIT:
        raise OutOfMemoryError("stub")
    return np.empty(shape, dtype=dtype).view(Tensor)


class _Stream(contextlib.nullcontext):
    cuda_stream = 0

    def synchronize(self):
        return None


class Nccl:
    """`NCCLLibrary`: data goes through queues of this process."""

    channels: dict[tuple[bytes, int], queue.Queue] = defaultdict(queue.Queue)

    def __init__(self, _path=None):
        self.joined: list[int] = []

    def ncclGetUniqueId(self):
        return SimpleNamespace(internal=os.urandom(128))

    def unique_id_from_bytes(self, data):
        if len(data) != 128:
            raise ValueError(f"Expected 128 bytes, got {len(data)}")
        return SimpleNamespace(internal=data)

    def ncclCommInitRank(self, _world, unique_id, rank):
        self.joined.append(rank)
        return bytes(unique_id.internal)

    def ncclSend(self, pointer, count, dtype, peer, comm, _stream):
        self.channels[comm, peer].put(ctypes.string_at(pointer, count * dtype.itemsize))

    def ncclRecv(self, pointer, count, dtype, peer, comm, _stream):
        data = self.channels[comm, peer ^ 1].get(timeout=5)
        if len(data) != count * dtype.itemsize:
            raise RuntimeError("NCCL error: invalid argument")
        ctypes.memmove(pointer, data, len(data))


class _Pool:
    def __init__(self, max_block_size):
        self.stored: dict[int, Tensor] = {}

    def store_tensor(self, stored):
        self.stored[id(stored)] = stored
        return id(stored)

    def load_tensor(self, address, _dtype, _shape, _device):
        return self.stored[address]

    def free(self, address):
        del self.stored[address]


class ConnectorBase:
    """`KVConnectorBase_V1`: keeps the configuration and the bound metadata."""

    def __init__(self, vllm_config, role, kv_cache_config=None):
        self._vllm_config = vllm_config
        self._kv_transfer_config = vllm_config.kv_transfer_config

    def bind_connector_metadata(self, metadata):
        self._bound = metadata

    def _get_connector_metadata(self):
        return self._bound


class _Poller(zmq.Poller):
    def __init__(self):
        super().__init__()
        self.stopped = threading.Event()

    def poll(self, timeout=None):
        while not self.stopped.is_set():
            ready = super().poll(10)
            if ready:
                return ready
        raise SystemExit


class KeepingContext(zmq.Context):
    """A context that keeps its sockets until it is destroyed, whoever else forgets them."""

    kept: list[zmq.Socket] | None = None  # pyzmq sets only attributes that the class has

    def __init__(self):
        super().__init__()
        self.kept = []

    def socket(self, *arguments, **options):
        self.kept.append(super().socket(*arguments, **options))
        return self.kept[-1]


class _Zmq(ModuleType):
    Poller = _Poller
    Context = KeepingContext

    def __getattr__(self, name):
        return getattr(zmq, name)


class _Thread(threading.Thread):
    def run(self):
        with contextlib.suppress(SystemExit):
            super().run()


Threading = SimpleNamespace(Thread=_Thread, Condition=threading.Condition)
"""Threads that SystemExit ends without a word."""


def _end_of_thread(_seconds):
    raise SystemExit


Time = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=_end_of_thread)  # noqa: TID251  stub of `time`
"""Only the announcing thread sleeps; it ends there, after one announcement."""


class Poison:
    """An item of the send queue that ends the thread which takes it."""

    def __getattr__(self, name):
        raise SystemExit

    def __iter__(self):
        raise SystemExit


Role = SimpleNamespace(SCHEDULER="scheduler", WORKER="worker")


def modules() -> dict[str, ModuleType]:
    """The stubs by module name, ready for `sys.modules`."""
    stream = _Stream()
    attributes: dict[str, dict[str, Any]] = {
        "torch": {
            "Tensor": Tensor, "tensor": tensor, "empty": _empty, "float32": np.float32, "float16": np.float16,
            "arange": lambda *bounds: np.arange(*bounds).view(Tensor), "device": lambda _name: Device(),
            "accelerator": SimpleNamespace(device_index=lambda _index: contextlib.nullcontext()),
            "cuda": SimpleNamespace(
                Stream=lambda: stream, OutOfMemoryError=OutOfMemoryError,
                stream=lambda _stream: contextlib.nullcontext(), device=lambda _device: contextlib.nullcontext(),
            ),
        },
        "vllm.config": {"VllmConfig": object, "KVTransferConfig": object},
        "vllm.config.kv_transfer": {"KVTransferConfig": object},
        _PYNCCL: {
            "NCCLLibrary": Nccl, "buffer_type": int, "cudaStream_t": int, "ncclComm_t": object,
            "ncclDataTypeEnum": SimpleNamespace(from_torch=np.dtype),
        },
        f"{_V1}.p2p.tensor_memory_pool": {"TensorMemoryPool": _Pool},
        f"{_V1}.base": {
            "KVConnectorBase_V1": ConnectorBase, "KVConnectorMetadata": object, "KVConnectorRole": Role,
        },
        "vllm.utils": {"current_stream": _Stream, "get_ip": lambda: "127.0.0.1"},
        "vllm.utils.network_utils": {"get_ip": lambda: "127.0.0.1"},
        "vllm.utils.torch_utils": {"current_stream": _Stream},
        "vllm.distributed.parallel_state": {"get_world_group": lambda: SimpleNamespace(rank=0, local_rank=0)},
        "vllm.forward_context": {"get_forward_context": lambda: SimpleNamespace(no_compile_layers=("0", "1"))},
        "vllm.logger": {"init_logger": logging.getLogger},
        "vllm.attention.backends.abstract": {"AttentionMetadata": object},
        "vllm.v1.attention.backend": {"AttentionMetadata": object},
        "vllm.v1.attention.backends.mla.common": {"MLACommonMetadata": type("MLACommonMetadata", (), {})},
        "vllm.model_executor.layers.attention.mla_attention": {
            "MLACommonMetadata": type("MLACommonMetadata", (), {}),
        },
        "vllm.v1.core.sched.output": {"SchedulerOutput": object},
    }  # fmt: skip
    made: dict[str, ModuleType] = {"regex": re, "zmq": _Zmq("zmq")}
    for name, values in attributes.items():
        for end in range(1, name.count(".") + 2):
            parent = ".".join(name.split(".")[:end])
            made.setdefault(parent, ModuleType(parent))
        vars(made[name]).update(values)
    return made
