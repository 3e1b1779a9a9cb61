from ppd_sim.kv.cache import PrefixCache, block_hashes, chain_start

START = chain_start(None, "")


def test_a_hash_covers_everything_before_it():
    first, second = block_hashes(list(range(32)), 16, START), block_hashes([9, *range(1, 32)], 16, START)
    assert len(first) == 2
    assert not set(first) & set(second)
    assert block_hashes(list(range(40)), 16, START) == first


def test_a_chain_can_be_continued():
    whole = block_hashes(list(range(64)), 16, START)
    assert whole[:2] + block_hashes(list(range(32, 64)), 16, whole[1]) == whole


def test_adapter_and_salt_separate_caches():
    starts = {chain_start(None, ""), chain_start("a", ""), chain_start(None, "a"), chain_start("a", "a")}
    assert len({block_hashes(list(range(16)), 16, start)[0] for start in starts}) == 4


def test_the_longest_held_prefix_counts():
    cache = PrefixCache(100)
    hashes = block_hashes(list(range(64)), 16, START)
    cache.insert(hashes[:3])
    assert cache.match(hashes) == (3, False)
    assert cache.match(hashes[1:]) == (2, False)
    assert cache.match([b"other", *hashes]) == (0, False)


def test_the_least_recently_used_sequence_is_evicted_from_its_end():
    cache = PrefixCache(4)
    old, new = block_hashes(list(range(48)), 16, START), block_hashes(list(range(100, 132)), 16, START)
    cache.insert(old)
    cache.insert(new)
    assert cache.match(new) == (2, False)
    assert cache.match(old) == (2, False)
    assert (len(cache), cache.evicted_blocks) == (4, 1)


def test_use_protects_from_eviction():
    cache = PrefixCache(2)
    cache.insert([b"a"])
    cache.insert([b"b"])
    cache.match([b"a"])
    cache.insert([b"c"])
    assert cache.match([b"a"]) == (1, False)
    assert cache.match([b"b"]) == (0, False)


def test_damage_is_remembered():
    cache = PrefixCache(10)
    cache.insert([b"a"])
    cache.insert([b"b"], is_damaged=True)
    assert cache.match([b"a"]) == (1, False)
    assert cache.match([b"a", b"b"]) == (2, True)


def test_no_capacity_keeps_nothing():
    cache = PrefixCache(0)
    cache.insert([b"a"])
    assert len(cache) == 0
