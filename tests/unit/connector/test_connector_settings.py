"""kv-transfer-config: what it means, and that every mistake names its key, its value and what is right."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ppd_connector.settings import DEFAULT_BUFFER_BYTES, Settings, read_settings
from ppd_connector.versions import READ, RUN, check_vllm_version


@dataclass
class KVTransferConfig:
    kv_role: str = "kv_producer"
    kv_port: Any = 14579
    kv_buffer_size: float | None = None
    kv_connector_extra_config: dict[str, Any] | None = field(default_factory=dict)


def read(top=(), **extra):
    return read_settings(KVTransferConfig(kv_connector_extra_config=extra, **dict(top)))


@pytest.mark.parametrize("extra", [None, {}])
def test_nothing_said_is_all_defaults(extra):
    assert read_settings(KVTransferConfig(kv_connector_extra_config=extra)) == Settings(
        role="kv_producer", kv_port=14579
    )


def test_everything_said():
    found = read(
        {"kv_role": "kv_both", "kv_port": "21001"}, proxy_ip="10.0.0.9", proxy_port="30001", http_port="8100",
        send_type="GET", transport="nccl", kv_buffer_size="2e9", timeout_s="5", lease_s=6, fence_s=0, checksum="none",
        dump_dir="/tmp/x", dump_share=0.5, fault="fp8@0.1", kv_ip="10.0.0.1", nccl_num_channels=4, mem_pool_size_gb=32,
    )  # fmt: skip
    assert found == Settings(
        role="kv_both", kv_port=21001, kv_ip="10.0.0.1", proxy="10.0.0.9:30001", http_port=8100, send_type="GET",
        transport="nccl", buffer_bytes=2_000_000_000, timeout_s=5.0, lease_s=6.0, fence_s=0.0, is_checksummed=False,
        dump_dir=Path("/tmp/x"), dump_share=0.5, fault="fp8@0.1", nccl_num_channels="4",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("role", "is_producer", "is_consumer"),
    [("kv_producer", True, False), ("kv_consumer", False, True), ("kv_both", True, True)],
)
def test_what_a_role_does(role, is_producer, is_consumer):
    settings = read({"kv_role": role})
    assert (settings.is_producer, settings.is_consumer) == (is_producer, is_consumer)


@pytest.mark.parametrize("extra", [{"proxy_ip": "", "proxy_port": ""}, {"proxy_ip": "h"}, {"proxy_port": 3}])
def test_half_a_proxy_is_none(extra):
    assert read(**extra).proxy is None


@pytest.mark.parametrize(
    ("value", "found"),
    [(True, True), (False, False), ("true", True), ("false", False), ("xxh3", True), ("none", False)],
)
def test_the_checksum_has_many_words(value, found):
    assert read(checksum=value).is_checksummed is found


@pytest.mark.parametrize(
    ("top", "extra", "found"),
    [(None, {}, DEFAULT_BUFFER_BYTES), (5e8, {}, 500_000_000), (5e8, {"kv_buffer_size": 7}, 7)],
)
def test_the_buffer_size_may_stand_at_both_places(top, extra, found):
    assert read({"kv_buffer_size": top}, **extra).buffer_bytes == found


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"send_typ": "PUT"}, "send_typ is no key of kv_connector_extra_config; known are checksum"),
        ({"send_type": "PUSH"}, "send_type is 'PUSH'; it must be one of PUT, PUT_ASYNC, GET"),
        ({"send_type": []}, r"send_type is \[\]; it must be one of"),
        ({"transport": "rdma"}, "transport is 'rdma'; it must be one of tcp, nccl"),
        ({"proxy_port": 70000}, "proxy_port is 70000; it must be a whole number from 0 to 65535"),
        ({"proxy_port": 1.5}, "proxy_port is 1.5; it must be a whole number"),
        ({"http_port": 0}, "http_port is 0; it must be a whole number from 1 to 65535"),
        ({"proxy_ip": "h", "proxy_port": 3}, "http_port is missing; with proxy_ip 'h' it must be the engine's own"),
        ({"timeout_s": 0}, "timeout_s is 0; it must be a number above 0"),
        ({"timeout_s": "soon"}, "timeout_s is 'soon'; it must be a number above 0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan; it must be a number above 0"),
        ({"timeout_s": float("inf")}, "timeout_s is inf; it must be a number above 0"),
        ({"lease_s": None}, "lease_s is None; it must be a number above 0"),
        ({"fence_s": -1}, "fence_s is -1; it must be a number at least 0"),
        ({"dump_share": 1.1}, "dump_share is 1.1; it must be a number at least 0 and at most 1"),
        ({"checksum": "crc"}, r"checksum is 'crc'; it must be true \(\"xxh3\"\) or false"),
        ({"checksum": 1}, "checksum is 1; it must be true"),
        ({"checksum": []}, r"checksum is \[\]; it must be true"),
        ({"kv_buffer_size": 0}, "kv_buffer_size is 0; it must be a number of bytes above 0, for example 1e9"),
        ({"kv_buffer_size": "1GB"}, "kv_buffer_size is '1GB'; it must be a number of bytes"),
        ({"kv_buffer_size": "inf"}, "kv_buffer_size is 'inf'; it must be a number of bytes"),
        ({"fault": "bitflp"}, "fault is 'bitflp': 'bitflp' is none of"),
        ({"fault": 5}, "fault is 5; it must be a specification or the path"),
    ],
)
def test_a_mistake_is_named(extra, says):
    with pytest.raises(ValueError, match=f"^kv-transfer-config of PPDConnector: .*{says}"):
        read(**extra)


@pytest.mark.parametrize("port", [0, 65536, "x", None, -1])
def test_a_port_that_is_none_is_named(port):
    with pytest.raises(ValueError, match=f"kv_port is {port!r}; it must be a port from 1 to 65535"):
        read({"kv_port": port})


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ValueError, match="kv_port") as raised:
        read({"kv_port": 0}, timeout_s=0, send_type="x", unknown=1)
    assert str(raised.value).count("; ") >= 6
    for name in ("kv_port", "timeout_s", "send_type", "unknown"):
        assert name in str(raised.value)


# Releases


@pytest.mark.parametrize("release", [*RUN, *READ])
def test_a_release_that_was_checked_is_fine(release):
    check_vllm_version("{}.{}.0".format(*release))
    check_vllm_version("{}.{}.1rc1+cpu".format(*release))


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        ("0.23.9", "vLLM's own P2pNcclConnector"),
        ("0.9.2", "vLLM's own P2pNcclConnector"),
        ("0.33.0", "never checked against"),
        ("1.0.0", "never checked against"),
        ("0.240.0", "never checked against"),
        ("dev", "cannot tell which release"),
    ],
)
def test_another_release_is_refused_with_advice(version, advice):
    with pytest.raises(RuntimeError, match=advice) as raised:
        check_vllm_version(version)
    assert version in str(raised.value)
