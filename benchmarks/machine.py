"""What a figure was measured on: the interpreter and its build, which modules are compiled, cores, kernel.

No path and no host name is in it, so that it can be printed beside a result and passed on.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PROBE: Final = """
import importlib.util, json, pathlib, platform, sysconfig, time

def loop_s():
    begun = time.perf_counter()
    total = 0
    for number in range(200_000):
        total += number & 7
    return time.perf_counter() - begun

told = " ".join(str(sysconfig.get_config_var(name)) for name in ("CONFIG_ARGS", "PY_CORE_CFLAGS", "PY_CORE_LDFLAGS"))
modules = compiled = 0
for name in ("ppd_wire", "ppd_accuracy", "ppd_core", "ppd_shell", "ppd_proxy"):
    found = importlib.util.find_spec(name)
    for folder in (found.submodule_search_locations or ()) if found else ():
        sources = {path for path in pathlib.Path(folder).rglob("*.py") if path.name != "__init__.py"}
        modules += len(sources)
        compiled += sum(any(path.parent.glob(path.stem + ".*.so")) for path in sources)
print(json.dumps({
    "implementation": platform.python_implementation(),
    "version": platform.python_version(),
    "build": " ".join(platform.python_build()),
    "compiler": platform.python_compiler(),
    "optimisation": next((flag for flag in ("-O3", "-O2", "-O1", "-O0") if flag in told), "?"),
    "says_profile_guided": "--enable-optimizations" in told or "-fprofile-use" in told,
    "says_link_time": "--with-lto" in told or "-flto" in told,
    "loop_ns": round(min(loop_s() for _ in range(7)) / 200_000 * 1e9, 1),
    "modules": modules,
    "compiled_modules": compiled,
}))
"""


def describe(python: str, env: Mapping[str, str]) -> dict[str, Any]:
    """What `python` is, found by running it, and the machine. `loop_ns` is one step of a plain loop: packagers do not
    always say that they built with a profile, and this shows it. OSError or CalledProcessError where it does not run.
    """
    done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True, env=dict(env))
    interpreter = json.loads(done.stdout.splitlines()[-1])
    return {"interpreter": interpreter, "cores": cores(), "processor": processor(), "kernel": kernel()}


def cores() -> int:
    return os.cpu_count() or 1


def kernel() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def processor() -> str:
    """The model's name as the kernel tells it, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def sentence(machine: Mapping[str, Any]) -> str:
    """All of it in a line or two."""
    python = machine["interpreter"]
    asked = (("profile-guided", python["says_profile_guided"]), ("link-time optimised", python["says_link_time"]))
    said = [name for name, is_said in asked if is_said]
    return (
        f"{python['implementation']} {python['version']} ({python['build']}; {python['compiler']}; "
        f"{python['optimisation']}, {' and '.join(said) or 'not said to be profile-guided'}; "
        f"{python['loop_ns']:g} ns per step of a plain loop), "
        f"{python['compiled_modules']} of {python['modules']} modules compiled; "
        f"{machine['cores']} cores {machine['processor']}, {machine['kernel']}".rstrip()
    )
