"""`PPDConnector`: vLLM's KV connector interface (v1) in front of the two halves. Decides nothing itself.

    --kv-transfer-config '{"kv_connector": "PPDConnector", "kv_connector_module_path": "ppd_connector.connector",
                           "kv_role": "kv_producer", "kv_port": 14579, "kv_connector_extra_config": {...}}'

Loads are asynchronous: the engine goes on with other requests while KV is under way, so a dead peer costs only the
request that waits for it. Source of the interface: vLLM `distributed/kv_transfer/kv_connector/v1/base.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

from ppd_connector.figures import RequestFigures
from ppd_connector.kv_cache import KvCache
from ppd_connector.plan import Step
from ppd_connector.scheduling import Scheduling
from ppd_connector.settings import read_settings
from ppd_connector.stats import PPDPromMetrics, PPDStats
from ppd_connector.versions import check_vllm_version
from ppd_connector.worker import Worker

check_vllm_version(vllm.__version__)

_Half = TypeVar("_Half", Scheduling, Worker)
_PARALLEL = (
    "pipeline_parallel_size",
    "data_parallel_size",
    "decode_context_parallel_size",
    "prefill_context_parallel_size",
)
_PATHS = ("_name_or_path", "transformers_version", "name_or_path", "_commit_hash")


@dataclass
class PPDMetadata(KVConnectorMetadata):
    """From the scheduler's half to the worker's."""

    step: Step = field(default_factory=Step)


@dataclass
class PPDWorkerMetadata(KVConnectorWorkerMetadata):
    """From the worker's half to the scheduler's: what requests cost, a list per rank that finished them."""

    figures: list[tuple[str, RequestFigures]] = field(default_factory=list)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        assert isinstance(other, PPDWorkerMetadata)
        return PPDWorkerMetadata([*self.figures, *other.figures])


class PPDConnector(KVConnectorBase_V1):
    """Built twice by vLLM: in the scheduler's process and in each worker's."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        parallel = vllm_config.parallel_config
        for name in _PARALLEL:
            if getattr(parallel, name, 1) != 1:
                raise ValueError(f"{name} is {getattr(parallel, name)}; PPDConnector needs 1 (tensor parallel is fine)")
        _check_caches(vllm_config.cache_config, kv_cache_config)
        self._settings = read_settings(self._kv_transfer_config)
        host = self._settings.kv_ip or _own_ip()
        block_tokens = vllm_config.cache_config.block_size
        self._scheduling: Scheduling | None = None
        self._worker: Worker | None = None
        if role == KVConnectorRole.SCHEDULER:
            own_address = f"{host}:{self._settings.kv_port}"
            self._scheduling = Scheduling(self._settings, block_tokens=block_tokens, own_address=own_address)
        else:
            from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

            self._worker = Worker(self._settings, host=host, rank=get_tensor_model_parallel_rank())

    # Worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        config, worker = self._vllm_config, self._half(self._worker)
        _check_device(next(iter(kv_caches.values())))
        parallel = config.parallel_config
        worker.start(
            KvCache(
                kv_caches,
                _specs(self._kv_cache_config),
                block_tokens=config.cache_config.block_size,
                cpu_isa=_cpu_isa if next(iter(kv_caches.values())).device.type == "cpu" else None,
                model=_model_facts(config),
                rank=parallel.rank % parallel.tensor_parallel_size,
                ranks=parallel.tensor_parallel_size,
            )
        )

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        super().bind_connector_metadata(connector_metadata)
        self._half(self._worker).prepare(self._step)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._half(self._worker).begin(self._step)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing to wait for: a request is scheduled only when all of its KV is in place."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        self._half(self._worker).save_layer(layer_name)

    def wait_for_save(self) -> None:
        self._half(self._worker).end(self._step)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        sent, loaded = self._half(self._worker).collect(finished_req_ids)
        return sent or None, loaded or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._half(self._worker).take_failed_blocks()

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        data = self._worker.take_figures() if self._worker is not None else None
        return None if data is None else PPDStats(data=dict(data))

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        figures = self._half(self._worker).take_request_figures()
        return PPDWorkerMetadata(list(figures.items())) if figures else None

    def shutdown(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    @property
    def _step(self) -> Step:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, PPDMetadata)
        return metadata.step

    # Scheduler

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        tokens = self._half(self._scheduling).matched_tokens(request, num_computed_tokens)
        return tokens, tokens > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        block_ids = blocks.get_block_ids()
        self._half(self._scheduling).allocated(request, block_ids[0] if block_ids else (), num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return PPDMetadata(self._half(self._scheduling).step(scheduler_output))

    def update_connector_output(self, connector_output: Any) -> None:
        told = getattr(connector_output, "kv_connector_worker_meta", None)
        if isinstance(told, PPDWorkerMetadata):
            for request_id, figures in told.figures:
                self._half(self._scheduling).figures(request_id, RequestFigures(*figures))

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        is_complete = request.status.name not in ("FINISHED_ABORTED", "FINISHED_IGNORED", "FINISHED_ERROR")
        return self._half(self._scheduling).finished(request.request_id, block_ids, is_complete=is_complete)

    # Figures

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats | None:
        return PPDStats(data=data) if data is not None else PPDStats()

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: Any,
        metric_types: dict[Any, Any],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> PPDPromMetrics:
        return PPDPromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    @staticmethod
    def _half(half: _Half | None) -> _Half:
        assert half is not None, "vLLM called the other half of the connector"
        return half


def _check_device(cache: torch.Tensor) -> None:
    if cache.device.type not in ("cpu", "cuda") or torch.version.hip is not None:
        raise ValueError(
            f"the KV cache is on {cache.device}; PPDConnector knows the CPU and CUDA devices. Use NixlConnector there"
        )
    if cache.device.type == "cpu" and cache.element_size() == 1:
        raise ValueError("--kv-cache-dtype fp8 on the CPU is stored in a way PPDConnector does not know; use auto")


def _own_ip() -> str:
    """As P2pNccl finds it: VLLM_HOST_IP, or the address of the default route."""
    from vllm.utils.network_utils import get_ip

    return str(get_ip())


def _check_caches(cache_config: Any, kv_cache_config: Any) -> None:
    """Refuse what a list of a request's blocks does not describe, or what the fingerprint cannot see."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    if len(kv_cache_config.kv_cache_groups) > 1:
        raise ValueError(
            f"the model has {len(kv_cache_config.kv_cache_groups)} KV cache groups; PPDConnector needs one:"
            " add --disable-hybrid-kv-cache-manager, or use NixlConnector for models with state layers"
        )
    for name, spec in _specs(kv_cache_config).items():
        if not isinstance(spec, FullAttentionSpec):
            raise ValueError(
                f"layer {name} has a {type(spec).__name__}; PPDConnector moves full attention (and MLA) only, because"
                " other caches drop a request's blocks while it runs. Use NixlConnector for this model"
            )
    if getattr(cache_config, "calculate_kv_scales", False):
        raise ValueError("calculate_kv_scales is set: each engine would scale its fp8 KV differently; unset it")


def _specs(kv_cache_config: Any) -> dict[str, Any]:
    specs = {}
    for group in kv_cache_config.kv_cache_groups:
        for name in group.layer_names:
            each = getattr(group.kv_cache_spec, "kv_cache_specs", None)
            specs[name] = each[name] if each is not None else group.kv_cache_spec
    return specs


def _cpu_isa(cache: torch.Tensor, spec: Any) -> str:
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    return str(_get_attn_isa(cache.dtype, cache.shape[2], spec.head_size))


def _model_facts(config: Any) -> Mapping[str, Any]:
    model = config.model_config
    facts = {name: value for name, value in model.hf_config.to_dict().items() if name not in _PATHS}
    return {
        "config": json.loads(json.dumps(facts, default=str, sort_keys=True)),
        "dtype": str(model.dtype),
        "kv_cache_dtype": str(config.cache_config.cache_dtype),
        "revision": model.revision,
    }
