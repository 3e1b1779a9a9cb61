"""What scripts/house.py counts, each figure on a small tree that has one of everything and something just beside it."""

import textwrap

import pytest

import house

BESIDE = {
    "circles of files": {
        "one/a.py": "from two.b import B",
        "two/b.py": "def f():\n    import one.a",
        "two/c.py": "from two import b",  # imports one of them, and none of them it
        "two/d.py": "from two.d import itself",
    },
    "class names used twice": {
        "one/a.py": "class Same: ...\nclass Other: ...",
        "two/a.py": "def f():\n    class Same: ...\nclass Others: ...",
    },
    "constructors with more than 7 arguments": {
        "one/a.py": """
            class Wide:
                def __init__(self, a, b, c, /, d, e, f, *, g, h): ...
            class Narrow:
                def __init__(self, a, b, c, d, e, f, g): ...
                def other(self, a, b, c, d, e, f, g, h): ...
        """,
    },
    "values with more than 7 fields": {
        "one/a.py": """
            @dataclass(frozen=True)
            class Wide:
                a: int; b: int; c: int; d: int; e: int; f: int; g: int; h: int = 0
            class Narrow(msgspec.Struct):
                a: int; b: int; c: int; d: int; e: int; f: int; g: int
            class NoValue:
                a: int; b: int; c: int; d: int; e: int; f: int; g: int; h: int
        """,
    },
    "functions that take an argparse.Namespace": {
        "one/a.py": """
            async def takes(args: argparse.Namespace | None) -> None: ...
            def gives() -> argparse.Namespace:
                args: argparse.Namespace
            def takes_another(names: Namespaces, others: SimpleNamespace) -> None: ...
        """,
    },
    "broad excepts": {
        "one/a.py": "try: ...\nexcept (OSError, Exception): ...",
        "one/b.py": "try: ...\nexcept OSError: ...\nexcept httptools.ParserException: ...",
    },
}


@pytest.fixture
def tree(tmp_path):
    """Writes files into a checkout, below proxy/ unless they are tests; gives the checkout."""

    def written(files):
        for name, text in files.items():
            path = tmp_path / (name if name.startswith("tests/") else f"proxy/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path

    return written


def counted(root):
    return {count.what: count for count in house.counts(root)}


def figures(root):
    return {what: count.figure for what, count in counted(root).items()}


@pytest.mark.parametrize("what", BESIDE)
def test_one_is_counted_and_what_looks_like_it_is_not(tree, what):
    assert figures(tree(BESIDE[what]))[what] == "1"


def test_a_bare_except_is_broad(tree):
    assert figures(tree({"one/a.py": "try: ...\nexcept: ..."}))["broad excepts"] == "1"


@pytest.mark.parametrize("head", ["@dataclass\nclass A:", "class A(msgspec.Struct):", "class A(NamedTuple):"])
def test_values_have_constructors_that_nobody_wrote(tree, head):
    fields = "".join(f"\n    x{number}: int" for number in range(8))
    assert counted(tree({"one/a.py": head + fields}))["values with more than 7 fields"].names == ("one.a.A: 8",)


def test_a_circle_may_go_a_long_way_round(tree):
    files = {f"one/m{number}.py": f"from one import m{(number + 1) % 4}" for number in range(4)}
    files |= {"two/a.py": "import two.b", "two/b.py": "import two.a"}
    assert counted(tree(files))["circles of files"].names == ("one.m0 one.m1 one.m2 one.m3", "two.a two.b")


def test_sizes_of_modules_functions_folders_and_tests(tree):
    function = "def f{}():\n" + "    ...\n" * 2
    root = tree({
        "one/__init__.py": '"""Marks a package, and is no module."""\n',
        "one/a.py": "x = 1\n",
        "one/b.py": "x = 1\n" * 2,
        "one/deep/c.py": "".join(function.format(number) for number in range(39)),
        "one/deep/deeper/d.py": "async def longest():\n" + "    ...\n" * 7,
        "two/e.py": "x = 1\n" * 3,
        "tests/unit/test_a.py": "x = 1\n" * 5,
        "tests/conftest.py": "x = 1\n" * 6,
    })  # fmt: skip
    found = figures(root)
    assert found.items() >= {
        "lines of source": "132",
        "lines of tests": "11",
        "modules": "5",
        "folders": "4; the fullest 2 (one)",
        "lines of the median module": "3",
        "lines of the largest module": "117 (one.deep.c)",
        "lines of a function, 95th percentile": "3",
        "lines of the longest function": "8 (one.deep.deeper.d.longest)",
    }.items()
    rooms, folders = (
        [line.strip() for line in counted(root)[what].names] for what in ("lines of source", "folders")
    )
    assert rooms == ["125 one.deep", "4 one", "3 two"]
    assert folders == ["2 one", "1 one.deep", "1 one.deep.deeper", "1 two"]


def test_a_like_named_test_ends_as_the_modules_path_does(tree):
    root = tree({
        "one/kv/blend.py": "", "one/kv/plane.py": "", "one/pages.py": "import math", "one/files.py": "import pathlib",
        "tests/unit/test_kv_blend.py": "", "tests/unit/test_plane.py": "", "tests/unit/test_pages_of_books.py": "",
    })  # fmt: skip
    found = counted(root)
    assert found["modules without a like-named test"].names == ("one.files", "one.pages")
    assert found["of them pure"].names == ("one.pages",)


def test_the_table_names_what_it_counts_when_it_is_asked_to(tree, capsys):
    root = str(tree({"one/a.py": "try: ...\nexcept: ..."}))
    assert house.main([root]) == 0
    told = capsys.readouterr().out
    assert [line.split()[-1] for line in told.splitlines() if line.startswith("broad excepts")] == ["1"]
    assert "one.a:2" not in told
    assert house.main(["--names", root]) == 0
    assert "    one.a:2\n" in capsys.readouterr().out


def test_a_folder_without_sources_is_a_mistake_in_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        house.main([str(tmp_path)])
    assert stopped.value.code == 2
    assert "no modules under proxy/" in capsys.readouterr().err


def test_this_checkout_is_counted_unless_another_is_named(capsys):
    assert house.main([]) == 0
    files = (house.ROOT / "proxy").rglob("*.py")
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert capsys.readouterr().out.splitlines()[0].split() == ["lines", "of", "source", str(lines)]
