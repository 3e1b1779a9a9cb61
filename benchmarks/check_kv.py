"""Memory and time of `ppd-acc check-kv` on two large dumps, against one warm read of the same files.

    python benchmarks/check_kv.py --gigabytes 2

Makes the dumps in a temporary directory (twice the size must fit), runs the command as a process of its own, and ends
with 1 where it needed more than --limit-mb or --limit-s. The target differs from the baseline by a step of bf16 in half
of its elements: equal dumps are faster, since equal pieces need not be decoded twice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

HEADS, CHANNELS, TOKENS = 8, 128, 16_384
BYTES_PER_LAYER = 2 * HEADS * TOKENS * CHANNELS * 2
READ_BYTES = 1 << 24
# A process starts with its parent's memory as its peak, so the command is started by a small one.
_MEASURING = """
import json, resource, subprocess, sys, time
started_at = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
wall_s = time.perf_counter() - started_at
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
said = (done.stdout.strip() or done.stderr.strip()).splitlines()
print(json.dumps({
    "exit": done.returncode, "said": said[-1] if said else "", "peak_mb": usage.ru_maxrss * 1024 / 1e6,
    "wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime,
}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of each dump (default %(default)s)")
    parser.add_argument("--directory", type=Path, help="where the dumps are made (default: the system's)")
    parser.add_argument("--equal", action="store_true", help="the target equals the baseline")
    parser.add_argument("--limit-mb", type=float, default=400.0, help="peak memory (default %(default)s)")
    parser.add_argument("--limit-s", type=float, default=60.0, help="time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the figures as one JSON line")
    options = parser.parse_args()
    layers = max(1, round(options.gigabytes * 1e9 / BYTES_PER_LAYER))
    with tempfile.TemporaryDirectory(prefix="check-kv-", dir=options.directory) as name:
        paths = [Path(name) / "baseline.npz", Path(name) / "target.npz"]
        for index, path in enumerate(paths):
            is_changed = index == 1 and not options.equal
            write_dump(path, layers, seed=options.seed, is_changed=is_changed)
        figures = measure(paths)
    figures["limit_mb"], figures["limit_s"] = options.limit_mb, options.limit_s
    tell(figures, as_json=options.json)
    is_within = figures["peak_mb"] <= options.limit_mb and figures["wall_s"] <= options.limit_s
    return 0 if is_within and figures["exit"] == 0 else 1


def write_dump(path: Path, layers: int, *, seed: int, is_changed: bool) -> None:
    """A dump as our connector writes it: bf16 as raw uint16, one array after the other, uncompressed."""
    metadata = {"dtype": "bfloat16", "block_size": 16, "side": "decode" if is_changed else "prefill"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("metadata.npy", "w") as member:
            npy.write_array(member, np.array(json.dumps(metadata)), allow_pickle=False)
        for number, plane in enumerate(planes(layers, seed=seed, is_changed=is_changed)):
            kind = ("key", "value")[number % 2]
            with archive.open(f"layer_{number // 2}_{kind}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, plane, allow_pickle=False)


def planes(layers: int, *, seed: int, is_changed: bool) -> Iterator[NDArray[np.uint16]]:
    """Each layer's K and V: (heads, tokens, channels), the same numbers for the same seed."""
    generator = np.random.default_rng(seed)
    shape = (HEADS, TOKENS, CHANNELS)
    for _ in range(2 * layers):
        values = generator.standard_normal(shape, np.float32)
        plane = (values.view(np.uint32) >> 16).astype(np.uint16)
        flips = generator.integers(0, 2, shape, np.uint16)
        yield plane ^ flips if is_changed else plane


def measure(paths: list[Path]) -> dict[str, float]:
    """One warm read first, so that the command does not wait for the disk either."""
    warm_read(paths)
    read_s = warm_read(paths)
    command = [sys.executable, "-m", "ppd_acc.cli.main", "check-kv", "--baseline", str(paths[0])]
    command += ["--target", str(paths[1]), "--json", str(paths[0].with_suffix(".json"))]
    done = subprocess.run([sys.executable, "-c", _MEASURING, *command], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    print(told["said"], file=sys.stderr)
    return {
        "exit": told["exit"],
        "bytes": sum(path.stat().st_size for path in paths),
        "peak_mb": told["peak_mb"],
        "wall_s": told["wall_s"],
        "cpu_s": told["cpu_s"],
        "read_s": read_s,
        "ratio": told["wall_s"] / read_s,
    }


def warm_read(paths: list[Path]) -> float:
    """Seconds to read both files once, into one buffer."""
    buffer = bytearray(READ_BYTES)
    started_at = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started_at


def tell(figures: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    print(f"dumps           {figures['bytes'] / 1e9:.2f} GB in two files")
    print(f"peak memory     {figures['peak_mb']:.0f} MB (at most {figures['limit_mb']:.0f})")
    print(f"time            {figures['wall_s']:.1f} s (at most {figures['limit_s']:.0f}), CPU {figures['cpu_s']:.1f} s")
    print(f"one warm read   {figures['read_s']:.2f} s; check-kv takes {figures['ratio']:.1f} times that")


if __name__ == "__main__":
    sys.exit(main())
