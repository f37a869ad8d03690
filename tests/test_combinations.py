"""Names of combinations: readable, safe in paths and links, the same whatever else is in the lists."""

import re
from urllib.parse import quote

import pytest

from foundling.combinations import combinations, point_name, value_name, variants
from foundling.errors import ParameterError
from foundling.run import NAME

STRANGE = ["", "a b", "a/b", "../x", ".", "..", "é", "x" * 300, [1, 2], {"k": 1}, None, 1e-5, -0.25, "a..b", "%20", "A"]


def test_the_last_axis_changes_fastest():
    assert combinations({"a": [1, 2], "b": ["x", "y"]}, "w") == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}
    ]  # fmt: skip


def test_a_point_is_named_by_its_values():
    assert point_name({"backbone": "scenes_odin", "block": -1, "bias": True}) == (
        "backbone-scenes_odin__block--1__bias-true"
    )
    assert value_name(0.2) == "0.2"


def test_names_are_safe_and_differ():
    names = [value_name(value) for value in STRANGE]
    assert len(set(names)) == len(STRANGE)
    for name in names:
        assert quote(name) == name and "/" not in name and name not in (".", "..") and len(name) <= 40
        assert NAME.fullmatch(f"corloc.lost.x-{name}"), name
    points = [point_name({f"axis_{i}": value for i in range(40)}) for value in STRANGE]
    assert len(set(points)) == len(STRANGE) and max(map(len, points)) <= 160
    assert re.fullmatch(r"x{31}-[0-9a-f]{8}", value_name("x" * 300))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"a": []}, "w: a has no values: give it a list of one or more"),
        ({"a": [1, 2, 1]}, "w: a has 1 twice"),
        ({"a": [True, "true"]}, r"w: a has True twice \(or another value of that name\)"),
    ],
)
def test_what_cannot_be_combined_is_named(axes, message):
    with pytest.raises(ParameterError, match=message):
        combinations(axes, "w")


def test_one_and_true_are_two_values():
    assert len(combinations({"a": [1, True, 1.0]}, "w")) == 3


def test_variants_are_named_by_what_differs_from_the_first():
    made = variants("lost", {"method": "lost", "k": [100, 1], "facet": ["keys", "tokens"]}, "grids.lost")
    assert made == {
        "lost": {"method": "lost", "k": 100, "facet": "keys"},
        "lost.facet-tokens": {"method": "lost", "k": 100, "facet": "tokens"},
        "lost.k-1": {"method": "lost", "k": 1, "facet": "keys"},
        "lost.k-1.facet-tokens": {"method": "lost", "k": 1, "facet": "tokens"},
    }
    assert variants("box", {"method": "centre_box"}, "x") == {"box": {"method": "centre_box"}}
    with pytest.raises(ParameterError, match=r"grids\.lost: k has 3 twice"):
        variants("lost", {"method": "lost", "k": [3, 3]}, "grids.lost")
