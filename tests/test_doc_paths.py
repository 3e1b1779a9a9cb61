"""Every file, module and heading that the README and docs/ point at exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("connector_patches/**/README.md"))
ROOTS = (ROOT, ROOT / "proxy", ROOT / "connector_patches")
LINK = re.compile(r"\]\((?!\w+:)(?P<file>[^)#\s]*)(?:#(?P<heading>[^)\s]+))?\)")
PATH = re.compile(
    r"(?<![\w/.-])(?:\./)?(?P<path>(?:proxy|scripts|tests|benchmarks|docs|connector_patches|ppd_[a-z]+)/[\w./-]*\w/?)"
)
BARE = re.compile(r"`(?P<path>[\w/]+\.py)`")


def headings(page: str) -> set[str]:
    """The anchors of a page, made as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    """Links to files that are not there, and to headings that no page has."""
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / link["file"]).resolve() if link["file"] else page
        if not target.exists() or (link["heading"] and link["heading"] not in headings(target.read_text("utf-8"))):
            yield link[0]


def stale_paths(text: str, modules: frozenset[str]) -> list[str]:
    """Paths from the repository's root or a package, and `module.py` alone, that name nothing; `modules` are all."""
    paths = {match["path"] for match in PATH.finditer(text)}
    bare = {match["path"] for match in BARE.finditer(text)} - paths
    stale = {path for path in paths if not any((root / path).exists() for root in ROOTS)}
    return sorted(stale | {path for path in bare if not any(f"/{each}".endswith(f"/{path}") for each in modules)})


@pytest.fixture(scope="module")
def modules() -> frozenset[str]:
    folders = ("proxy", "connector_patches", "scripts", "benchmarks", "tests")
    return frozenset(path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_are_named_exist(page, modules):
    text = page.read_text(encoding="utf-8")
    if page.name == "migrating.md":
        text = re.sub(r"(?m)^\| [^|]+\|", "", text)  # the first column names the other project's files
    assert stale_paths(text, modules) == []


def test_stale_paths_are_noticed(modules):
    text = "`ppd_core/policy/` and ppd_core/polity/, `config.py`, `no_such_module.py`, see ./scripts/gone.sh."
    assert stale_paths(text, modules) == ["no_such_module.py", "ppd_core/polity/", "scripts/gone.sh"]


def test_broken_links_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A b\n```\n# c\n```\n[1](#a-b) [2](#c) [3](page.md#a-b) [4](other.md) [5](https://x/y.md#z)")
    assert list(broken_links(page)) == ["](#c)", "](other.md)"]
