"""Request ids: the system's randomness, read in blocks."""

import random

from ppd_proxy.config.config import Config
from ppd_proxy.config.sections import Server
from ppd_proxy.keys import KEY_BYTES, KeySource
from ppd_proxy.runtime.runtime import Runtime


def test_keys_are_the_systems_random_bytes_in_blocks():
    blocks = []

    def read(count):
        blocks.append(random.Random(len(blocks)).randbytes(count))
        return blocks[-1]

    source = KeySource(read)
    keys = [source() for _ in range(600)]
    assert all(len(key) == 2 * KEY_BYTES and int(key, 16) >= 0 for key in keys)
    assert len(set(keys)) == 600
    assert [len(block) for block in blocks] == [4096] * 3
    assert "".join(sorted(keys[:256])) == "".join(sorted(blocks[0][i : i + 16].hex() for i in range(0, 4096, 16)))


def test_two_sources_have_no_key_in_common():
    first, second = KeySource(), KeySource()
    assert not {first() for _ in range(1000)} & {second() for _ in range(1000)}


async def test_the_proxys_ids_cannot_be_computed_from_earlier_ones():
    """Whatever draws them holds no state to compute the next one from: they are read from the system."""
    runtime = Runtime(Config(server=Server(port=0)))
    try:
        assert isinstance(runtime._new_key, KeySource)
        assert runtime._new_key() != runtime._new_key()
    finally:
        await runtime.stop()
