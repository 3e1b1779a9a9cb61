"""Which modules run compiled, and whether they are those of the sources beside them."""

from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from ppd_proxy.runtime.compiled import MANIFEST, StaleModules, clean, compiled_modules, write_manifest

NAMES = ("ppd_core.a", "ppd_proxy.b")
LIBRARIES = [f"{name.replace('.', '/')}{EXTENSION_SUFFIXES[0]}" for name in NAMES]


@pytest.fixture
def tree(tmp_path):
    for name, library in zip(NAMES, LIBRARIES, strict=True):
        source = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        source.parent.mkdir(exist_ok=True)
        source.write_text(f"# {name}")
        (tmp_path / library).write_bytes(b"")
    write_manifest(tmp_path, NAMES, LIBRARIES)
    return tmp_path


def test_what_was_compiled_is_named(tree):
    assert compiled_modules(tree) == NAMES


def test_where_nothing_was_compiled_there_is_nothing(tmp_path):
    assert compiled_modules(tmp_path) == ()
    clean(tmp_path)


def test_libraries_for_another_python_are_not_taken(tree):
    (tree / LIBRARIES[0]).rename(tree / "ppd_core/a.cpython-27.so")
    assert compiled_modules(tree) == NAMES[1:]


def test_a_source_that_changed_is_named(tree):
    (tree / "ppd_core/a.py").write_text("# something else")
    with pytest.raises(StaleModules, match=r"ppd_core\.a ran compiled from another source; run scripts/compile.py"):
        compiled_modules(tree)


def test_what_was_compiled_can_be_taken_away(tree):
    clean(tree)
    assert compiled_modules(tree) == ()
    assert not (tree / MANIFEST).exists()
    assert not any((tree / library).exists() for library in LIBRARIES)
