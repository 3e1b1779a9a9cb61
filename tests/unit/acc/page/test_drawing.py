"""Lines, marks and legends."""

import pytest

from ppd_acc.page.drawing import Key, Picture, dots, figure, mark, path, place, plot_area, shape_of, stairs, whisker


def test_a_picture_without_parts_and_content_says_why_instead():
    nothing = Picture(name="p", title="Title", finding="Nothing was measured.")
    assert nothing.is_nothing
    assert "Nothing was measured." in figure(nothing)
    assert "<svg" not in figure(nothing)


def test_a_picture_shows_its_legend_and_is_described_for_who_cannot_see_it():
    drawn = Picture(
        name="p", title="A <title>", finding="F", description="What it shows", parts=[path([(0, 0), (1, 2)], "line")],
        keys=[Key(class_="real", label="a real one", kind="diamond")],
    )  # fmt: skip
    page = figure(drawn)
    assert "A &lt;title&gt;" in page
    assert "What it shows" in page
    assert "a real one" in page


def test_scales_grow_to_the_right_and_upwards():
    x, y = plot_area(low_x=0, high_x=10, low_y=0, high_y=1)
    assert x(0) < x(10)
    assert y(0) > y(1)


def test_a_curve_keeps_its_height_up_to_the_next_point():
    assert stairs([(0, 5), (2, 3)]) == [(0, 5), (2, 5), (2, 3)]
    assert stairs([]) == []


def test_paths_are_closed_only_where_they_are_areas():
    assert 'd="M0 0L1.5 2"' in path([(0, 0), (1.5, 2)], "line")
    assert 'd="M0 0L1.5 2Z"' in path([(0, 0), (1.5, 2)], "area", is_closed=True)


def test_many_points_are_one_path():
    assert dots([(1, 2), (3, 4)], "equal").count("<path") == 1


@pytest.mark.parametrize(
    ("status", "shape"), [("real", "diamond"), ("unclassified", "square"), ("error", "cross"), ("anything", "dot")]
)
def test_a_status_has_a_shape_of_its_own(status, shape):
    assert shape_of(status) == shape


def test_a_mark_tells_about_itself_where_the_pointer_rests():
    assert "<title>a &amp; b</title>" in mark("square", 1, 2, "real", "a & b")
    assert "<title>" not in mark("cross", 1, 2, "real")


def test_places_have_a_digit_where_they_need_one():
    assert [place(1.0), place(1.25), place(-0.5)] == ["1", "1.2", "-0.5"]


def test_an_interval_stands_or_lies():
    assert "V9" in whisker(5, 3, 9, "equal")
    assert "H9" in whisker(5, 3, 9, "equal", is_flat=True)
