"""What `ppd_connector` uses of vLLM exists in every release it says it runs in (`connector_api`).

`test_check_complains_of` shows for each kind of complaint a doctored release that gets it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest
from tests.wheels import wheels
from tests.wheels.connector_api import (
    _OUTPUT,
    _REQUEST,
    CHECKS,
    READS,
    VERSIONS,
    Read,
    attributes,
    imports,
    missing_attributes,
    missing_imports,
    ours,
    release,
    status_names,
    subclasses,
    wrong_calls,
    wrong_overrides,
)

pytestmark = pytest.mark.wheels


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("version", VERSIONS)
def test_release_has_what_the_connector_uses(version: str, check: Callable[[Read], list[str]]):
    assert check(release(version)) == []


def test_the_releases_are_those_that_the_connector_says_it_runs_in():
    tree = ours()["versions.py"]
    said = {
        release_
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("RUN", "READ")
        for release_ in ast.literal_eval(node.value)
    }
    assert {tuple(map(int, version.split(".")[:2])) for version in VERSIONS} == said


def test_something_is_found_to_check():
    """A check that looks at nothing would never complain."""
    bases = {name for _, _, name in subclasses()}
    assert {"KVConnectorBase_V1", "KVConnectorStats", "KVConnectorPromMetrics", "KVConnectorWorkerMetadata"} <= bases
    assert {"get_ip", "_get_attn_isa", "get_tensor_model_parallel_rank", "_custom_ops"} <= {
        name for _, _, name, _ in imports()
    }
    assert [row for row in READS if not attributes(row)] == []
    assert status_names()


BASE = wheels.CONNECTORS + "v1/base.py"
METRICS = wheels.CONNECTORS + "v1/metrics.py"
CPU = "vllm/v1/attention/backends/cpu_attn.py"
OPS = "vllm/_custom_ops.py"
STATUS = min(status_names(), default="")
DOCTORED = [
    (missing_imports, BASE, "class KVConnectorWorkerMetadata(", "class Renamed(", "no KVConnectorWorkerMetadata in"),
    (missing_imports, "vllm/utils/network_utils.py", "def get_ip(", "def get_address(", "no get_ip in"),
    (missing_imports, METRICS, None, None, f"no module {METRICS[:-3].replace('/', '.')}"),
    (missing_imports, "vllm/__init__.py", "__version__", "__release__", "no __version__ in vllm"),
    (missing_imports, OPS, None, None, "no _custom_ops in vllm"),
    (wrong_overrides, BASE, "def get_block_ids_with_load_errors(", "def failed(", "with_load_errors: no such method"),
    (wrong_overrides, BASE, "num_external_tokens: int\n", "num_tokens: int\n", "update_state_after_alloc: takes"),
    (wrong_overrides, BASE, "num_external_tokens: int\n", "num_external_tokens: int, step: int\n", "alloc: takes"),
    (wrong_overrides, BASE, "def save_kv_layer(\n        self,\n", "def save_kv_layer(\n        self, step,\n",
     "save_kv_layer: takes"),
    (wrong_overrides, BASE, "    def shutdown(self", "    @abstractmethod\n    def close(self): ...\n"
     "\n    def shutdown(self", "PPDConnector.close: abstract"),
    (wrong_overrides, BASE, "    @classmethod\n    def build_prom_metrics(", "    def build_prom_metrics(",
     "is a classmethod, not a method"),
    (wrong_overrides, BASE, "def wait_for_layer_load(self, layer_name: str)",
     "def wait_for_layer_load(self, layer_name: str, **kwargs)", "does not take *args or **kwargs"),
    (wrong_overrides, BASE, "self._kv_transfer_config", "self._transfer_config", "no self._kv_transfer_config in"),
    (wrong_overrides, METRICS, "self._counter_cls", "self._counters", "no self._counter_cls in KVConnectorPromMetrics"),
    (wrong_overrides, METRICS, "engine_idx: int = 0", "engine: int = 0", "PPDPromMetrics.observe: takes"),
    (wrong_calls, CPU, "def _get_attn_isa(", "def _get_isa(", "no _get_attn_isa in"),
    (wrong_calls, CPU, "    head_size: int | None = None,\n    kv_cache_dtype: str | None = None,\n",
     "    head_size: int,\n    kv_cache_dtype: str,\n", "_get_attn_isa is not given ['kv_cache_dtype']"),
    (wrong_calls, OPS, "    isa: str,\n    k_scale: float = 1.0,",
     "    isa: str,\n    layout: str,\n    k_scale: float = 1.0,", "reshape_and_cache is not given ['layout']"),
    (wrong_calls, BASE, "        role: KVConnectorRole,\n", "", "is given 3 values"),
    (missing_attributes, _OUTPUT, "    num_computed_tokens: int\n", "    computed: int\n",
     "no NewRequestData.num_computed_tokens"),
    (missing_attributes, _OUTPUT, "    resumed_req_ids: set[str]", "    resumed: set[str]",
     "no CachedRequestData.resumed_req_ids"),
    (missing_attributes, _OUTPUT, "    mm_features:", "    mm_inputs:", "no NewRequestData.mm_features"),
    (missing_attributes, "vllm/v1/outputs.py", "    kv_connector_worker_meta:", "    meta:",
     "no KVConnectorOutput.kv_connector_worker_meta"),
    (missing_attributes, "vllm/config/kv_transfer.py", "    kv_port:", "    port:", "no KVTransferConfig.kv_port"),
    (missing_attributes, _REQUEST, f"{STATUS} = ", f"RENAMED_{STATUS} = ", f"no RequestStatus.{STATUS}"),
    (missing_attributes, _REQUEST, "class Request:", "class Ask:", "no class Request in"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "path", "old", "new", "complaint"), DOCTORED)
def test_check_complains_of(
    check: Callable[[Read], list[str]], path: str, old: str | None, new: str | None, complaint: str
):
    def doctored(asked: str) -> str:
        text = release("0.32.0")(asked)
        if asked != path:
            return text
        if old is None or new is None:
            raise FileNotFoundError(asked)
        assert old in text
        return text.replace(old, new)

    complaints = check(doctored)
    assert any(complaint in each for each in complaints), complaints
