"""What moves payloads: the endpoint alone (`tcp`), or NCCL beside it. Knows no vLLM until NCCL is asked for."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

from ppd_connector.channel import Device
from ppd_connector.settings import Settings
from ppd_connector.store import DeviceStore, Payload

_log = logging.getLogger("ppd_connector")


class TorchStore(DeviceStore, Protocol):
    """A store that says where its cache is (`torch.device`)."""

    @property
    def device(self) -> Any: ...


class Nccl(NamedTuple):
    """What `transport: "nccl"` needs beside what `tcp` does."""

    device: Device
    store: DeviceStore


def open_nccl(store: TorchStore, settings: Settings) -> Nccl | None:
    """None for `tcp`. ValueError, saying what to do, when NCCL cannot be used here."""
    if settings.transport != "nccl":
        return None
    if store.device.type != "cuda":
        raise ValueError(
            f"transport is 'nccl', but this engine's KV cache is on {store.device.type}: NCCL moves GPU memory only."
            " Use transport 'tcp' on both engines"
        )
    from ppd_connector.nccl_device import CudaDevice  # here only: it loads NCCL

    device = CudaDevice(store.device, channels=settings.nccl_num_channels)
    if not settings.is_checksummed:
        _log.info(
            'KV goes from GPU to GPU without a checksum; "checksum": true on both engines makes one, of a copy in host'
            " memory"
        )
    return Nccl(device, store)


def on_host(payload: Payload, nccl: Nccl | None) -> memoryview:
    """The payload itself where it is in host memory, else a copy."""
    if isinstance(payload, memoryview):
        return payload
    assert nccl is not None
    return nccl.store.to_host(payload)
