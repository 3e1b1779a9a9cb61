"""Real vLLM on CPU for the tests in this directory: at most one cluster, of at most three engines, at a time."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import Cluster, ClusterSpec, split_engines, vllm_python
from processes import ClusterError

MAX_ENGINES = 3
# Engines take up to two minutes to start on two busy cores, and the first handoff of a pair may need a second try.
TEST_LIMIT_S = 900

UseCluster = Callable[[ClusterSpec], Cluster]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))


@pytest.fixture(scope="session")
def use_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UseCluster]:
    """Returns a running cluster for a spec. Asking for another one stops the last, so group tests by their cluster."""
    try:
        vllm_python()
    except ClusterError as error:
        pytest.skip(str(error))
    running: list[tuple[ClusterSpec, Cluster]] = []

    def use(spec: ClusterSpec) -> Cluster:
        assert len(spec.engines) <= MAX_ENGINES, f"{len(spec.engines)} engines do not fit into the memory of a runner"
        if running and running[-1][0] == spec and is_alive(running[-1][1]):
            return running[-1][1]
        stop_all()
        cluster = Cluster(replace(spec, logs=tmp_path_factory.mktemp("cluster")), report=print)
        cluster.start()
        running.append((spec, cluster))
        return cluster

    def stop_all() -> None:
        while running:
            running.pop()[1].stop()

    yield use
    stop_all()


@pytest.fixture
def float32_cluster(use_cluster: UseCluster) -> Cluster:
    """1 prefill, 1 decode and 1 aggregated engine in float32, where equal prompts give equal tokens, and the proxy."""
    return use_cluster(ClusterSpec(engines=split_engines(aggregated=1, dtype="float32")))


def is_alive(cluster: Cluster) -> bool:
    """Whether everything that was started still runs: a test may have killed an engine."""
    children = itertools.chain([cluster.proxy], (engine.child for engine in cluster.engines))
    return all(child is not None and child.is_running for child in children)
