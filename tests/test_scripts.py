"""The scripts of a fresh clone, one after the other, in every order: each gets what it needs into `.venv` itself.

The Python that makes `.venv` is a stand-in, so nothing is downloaded and nothing is run: it notes what it is asked for,
"installs" the requirements that pyproject.toml names, and refuses to run what was not installed. With the marker
`wheels` the same is tried with real installations.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "demo": ["scripts/demo.sh"],
    "ppd": ["scripts/run_ppd_test.sh", "ppd", "--engine", "simulated", "--once"],
    "pd": ["scripts/run_pd_separation_test.sh", "--engine", "simulated", "--once"],
    "test": ["scripts/test.sh"],
}
STAND_IN = r"""#!/bin/sh
# Python as far as the scripts use it; `.venv/site` is where packages are.
say() { echo "$*" >> asked; }
case "$*" in
  "-m venv .venv")
    say venv
    mkdir -p .venv/bin .venv/site/pip-1.0.dist-info
    cp "$0" .venv/bin/python
    exit 0 ;;
  *"-m pip "*)
    say "pip $(echo "$*" | sed 's/.*-e //')"
    PYTHONPATH=.venv/site exec "$REAL" -S "$INSTALL" "$@" ;;
  "-c import pip") [ -d .venv/site/pip-1.0.dist-info ] ;;
  -c\ *) exit 0 ;;
  scripts/missing.py*) PYTHONPATH=.venv/site exec "$REAL" -S "$@" ;;
  "-m "*)
    say "ran $2"
    [ -d ".venv/site/$2-99.dist-info" ] || { echo "No module named $2" >&2; exit 1; } ;;
  *)
    say "ran $1"
    [ -e .venv/site/ppd_proxy ] ;;
esac
"""
INSTALL = r"""
import re, sys, tomllib
from pathlib import Path

target = sys.argv[-1]
settings = tomllib.loads(Path("pyproject.toml").read_text())
project, folders = settings["project"], settings["tool"]["setuptools"]["package-dir"]
wanted = list(project["dependencies"])
extras = target.partition("[")[2].rstrip("]").split(",")
while extras:
    for each in project["optional-dependencies"].get(extras.pop(), ()):
        if each.startswith("ppd-proxy["):
            extras.append(each[10:-1])
        else:
            wanted.append(each)
for each in ["ppd-proxy>=99", *wanted]:
    name, lowest = re.match("(.*?)>=([^,]*)", each).groups()
    folder = Path(".venv/site", f"{name.replace('-', '_')}-99.dist-info")
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Name: {name}\nVersion: {lowest}\n")
for package, folder in folders.items():
    source = Path(".venv/site", package)
    source.unlink(missing_ok=True)
    source.symlink_to(Path(folder).resolve())
"""


def clone(folder):
    """What the scripts read of a fresh clone."""
    folder.mkdir()
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values():
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    for name in ("pyproject.toml", "requirements-ci.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def run(tmp_path):
    """Runs a script in a fresh clone with a stand-in for Python, and gives the lines of what that was asked for."""
    python, install, folder = tmp_path / "python3", tmp_path / "install.py", clone(tmp_path / "clone")
    python.write_text(STAND_IN)
    python.chmod(0o755)
    install.write_text(INSTALL)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "REAL": sys.executable, "INSTALL": str(install)}

    def started(name, status=0):
        asked = folder / "asked"
        asked.unlink(missing_ok=True)
        done = subprocess.run(SCRIPTS[name], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return asked.read_text().splitlines()

    started.folder = folder
    return started


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SCRIPTS, repeat=2)))
def test_any_script_can_follow_any_other(run, first, second):
    asked = run(first)
    assert asked[0] == "venv"
    assert asked[1].startswith("pip .")
    again = run(second)
    assert "venv" not in again
    is_needed = (first, second) in {("ppd", "demo"), ("pd", "demo")} or (second == "test" and first != "test")
    assert [each.startswith("pip ") for each in again].count(True) == is_needed
    assert run(second) == [each for each in again if not each.startswith("pip ")], "installed again"


def test_a_first_run_that_was_stopped_is_taken_up(run):
    """.venv is there, but neither pip nor anything else."""
    run("ppd")
    shutil.rmtree(run.folder / ".venv" / "site")
    assert run("ppd")[:2] == ["venv", "pip ."]


def test_a_venv_of_another_checkout_is_made_this_ones(run, tmp_path):
    """Its sources would be run, and not the ones that are here."""
    run("ppd")
    source = run.folder / ".venv" / "site" / "ppd_proxy"
    source.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").touch()
    source.symlink_to(elsewhere)
    assert run("ppd", status=0)[0] == "pip ."


def test_what_was_added_since_is_installed(run):
    run("ppd")
    shutil.rmtree(run.folder / ".venv" / "site" / "msgspec-99.dist-info")
    assert run("ppd")[0] == "pip ."


def test_an_old_python_is_named(run, tmp_path):
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    done = subprocess.run(
        SCRIPTS["ppd"], cwd=run.folder, env={"PATH": os.environ["PATH"], "PYTHON": str(python)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"Python 3.11 or newer is needed, {python} is not; name another with PYTHON=\n"


@pytest.mark.wheels
@pytest.mark.timeout(900)
def test_fresh_clone_runs_a_conversation_and_then_has_what_the_tests_need(tmp_path):
    """With real installations: what the first script leaves out the second one adds."""
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, tmp_path / "clone"], check=True)
    folder = tmp_path / "clone"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PPD_", "PYTHONPATH"))}
    ports = [f"--{name}-port=0" for name in ("prefill", "decode", "proxy")]
    subprocess.run([*SCRIPTS["ppd"], *ports], cwd=folder, env=environment, check=True)
    assert not (folder / ".venv" / "bin" / "ruff").exists()
    needs = ". scripts/venv.sh; need dev -c requirements-ci.txt; .venv/bin/python -m ruff check ."
    needs += "; .venv/bin/python -m pytest -q tests/test_docs.py"
    subprocess.run(["sh", "-ec", needs], cwd=folder, env=environment, check=True)
