"""The map of docs/architecture.md is that of the sources, and scripts/rooms.py draws what a small house has."""

import textwrap

import pytest

import rooms


@pytest.fixture
def built(tmp_path):
    files = {
        "ppd_wire/__init__.py": '"""What is said."""',
        "ppd_wire/events.py": "x = 1",
        "ppd_core/__init__.py": '"""What is decided:\nall of it.\n\nKnows no socket."""',
        "ppd_core/fleet/__init__.py": '"""The engines."""',
        "ppd_core/fleet/fleet.py": "from ppd_wire import events",
        "ppd_proxy/__init__.py": "",
        "ppd_proxy/server/__init__.py": '"""Clients."""',
        "ppd_proxy/server/app.py": "from ppd_core.fleet.fleet import F\nimport ppd_wire\nfrom ppd_proxy import keys",
        "ppd_proxy/cli/__init__.py": '"""Commands."""',
        "ppd_proxy/cli/main.py": "from ppd_proxy.server import app\nfrom ppd_proxy import keys",
        "ppd_proxy/keys.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "proxy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return rooms.read(tmp_path)


def test_the_map_is_that_of_the_sources():
    page = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.rewritten(page, rooms.read(rooms.ROOT)) == page, "run scripts/rooms.py"


def test_the_page_has_every_map():
    page = rooms.PAGE.read_text(encoding="utf-8")
    assert [f"<!-- map: {name} -->" in page for name in ("packages", "proxy", "rooms")] == [True] * 3


def test_a_package_points_at_what_it_imports_unless_another_arrow_says_so(built):
    picture = rooms.picture(built)
    assert "  ppd_core --> ppd_wire" in picture
    assert "  ppd_proxy --> ppd_core" in picture
    assert "ppd_proxy --> ppd_wire" not in picture


def test_a_package_shows_its_rooms(built):
    assert "<b>ppd_proxy</b><br/>cli · server" in rooms.picture(built)
    assert 'ppd_wire["<b>ppd_wire</b>"]' in rooms.picture(built)


def test_modules_at_the_top_of_the_proxy_are_rooms(built):
    arrows = rooms.proxy_picture(built).splitlines()[2:-1]
    assert arrows == ["  cli --> server", "  server --> keys"]


def test_a_room_owns_what_its_docstring_says_first(built):
    lines = rooms.table(built).splitlines()
    assert "| **`ppd_core`** | What is decided: all of it. |" in lines
    assert "| `ppd_core/fleet` | The engines. |" in lines
    assert not any("socket" in line for line in lines)


def test_a_map_of_another_name_is_refused(built):
    with pytest.raises(KeyError, match="garden"):
        rooms.rewritten("<!-- map: garden -->\n<!-- end of map -->", built)
