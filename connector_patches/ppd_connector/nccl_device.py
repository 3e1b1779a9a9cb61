"""NCCL and CUDA behind `channel.Device`, with vLLM's own wrapper of the library.

NOT RUN between two GPUs: NCCL refuses two ranks on one, and there was one. Run on it (NCCL 2.28.9): the library's calls
with one rank that sends to itself, and how the refusal and a lack of memory are told. Everything above `channel.Device`
is proven with a stand-in. Imported only when that transport is asked for.

Source: vLLM 0.24 to 0.32, `distributed/device_communicators/pynccl_wrapper.py`; NCCL's user guide on thread safety and
`ncclCommAbort`. The wrapper has no `ncclCommGetAsyncError`, so a peer that died is noticed by the limit on every wait.
"""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Any, Literal

import torch
from vllm.distributed.device_communicators.pynccl_wrapper import (
    NCCLLibrary,
    buffer_type,
    cudaStream_t,
    ncclDataTypeEnum,
)

from ppd_connector.kv_cache import CudaPayload
from ppd_connector.store import Payload

_log = logging.getLogger("ppd_connector")


class CudaDevice:
    """One GPU. `channels` is how many thread blocks a transfer may take there (`NCCL_MAX_NCHANNELS`), as text.

    ValueError when vLLM's NCCL library cannot be loaded.
    """

    def __init__(self, device: torch.device, *, channels: str) -> None:
        # NCCL reads these once per process, so they do nothing where tensor parallelism made a communicator before.
        os.environ.setdefault("NCCL_MAX_NCHANNELS", channels)
        os.environ.setdefault("NCCL_MIN_NCHANNELS", channels)
        try:
            self._library = NCCLLibrary()
            version = self._library.ncclGetVersion()
        except Exception as error:  # ctypes, vLLM's search and its wrapper raise different things: none is survivable
            reason = str(error).rstrip(".")
            raise ValueError(
                f"transport is 'nccl', but vLLM's NCCL library cannot be used: {reason}. Set VLLM_NCCL_SO_PATH to"
                " libnccl.so.2, or use transport 'tcp' on both engines"
            ) from error
        self._device = device
        # Owns the memory that is received into: only there can a freed piece not be waiting for anyone's kernels, as
        # all of them are over (on the host's clock) before one is freed. Nothing is ever run on it.
        self._memory = torch.cuda.Stream(device)
        _log.info("NCCL %s on %s", version, device)

    def unique_id(self) -> bytes:
        with torch.cuda.device(self._device):
            unique_id = self._library.ncclGetUniqueId()
        return ctypes.string_at(ctypes.addressof(unique_id), ctypes.sizeof(unique_id))

    def join(self, unique_id: bytes, rank: Literal[0, 1]) -> _CudaCommunicator:
        with torch.cuda.device(self._device):
            name = self._library.unique_id_from_bytes(unique_id)
            communicator = self._library.ncclCommInitRank(2, name, rank)
        return _CudaCommunicator(self._library, communicator, 1 - rank, self._device)

    def empty(self, size_bytes: int) -> CudaPayload:
        try:
            with torch.cuda.stream(self._memory):
                return CudaPayload(torch.empty(size_bytes, dtype=torch.uint8, device=self._device))
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(f"no GPU memory to receive KV: {error}") from error


class _CudaTransfer:
    def __init__(self, done: torch.cuda.Event) -> None:
        self._done = done

    def is_done(self) -> bool:
        return bool(self._done.query())


class _CudaCommunicator:
    """On a stream of its own, so that it waits for no other peer and no other peer for it."""

    def __init__(self, library: NCCLLibrary, communicator: Any, peer: int, device: torch.device) -> None:
        self._library = library
        self._communicator = communicator
        self._peer = peer
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, payload: Payload) -> _CudaTransfer:
        return self._move(self._library.ncclSend, payload)

    def receive(self, payload: Payload) -> _CudaTransfer:
        return self._move(self._library.ncclRecv, payload)

    def _move(self, call: Any, payload: Payload) -> _CudaTransfer:
        assert isinstance(payload, CudaPayload)
        with torch.cuda.device(self._device):
            if payload.ready is not None:
                self._stream.wait_event(payload.ready)
            call(
                buffer_type(payload.tensor.data_ptr()),
                payload.nbytes,
                ncclDataTypeEnum.ncclUint8,
                self._peer,
                self._communicator,
                cudaStream_t(self._stream.cuda_stream),
            )
            done = torch.cuda.Event()
            done.record(self._stream)
        return _CudaTransfer(done)

    def abort(self) -> None:
        with torch.cuda.device(self._device):
            self._library.ncclCommAbort(self._communicator)
