"""The checker of exercises: open, right, wrong, and answers of the wrong kind."""

from foundling.exercises import check


def test_open_right_and_wrong(capsys):
    assert check("E1", None, lambda a: a == 4, "Count the corners.") is None
    assert check("E1", 4, lambda a: a == 4, "Count the corners.") is True
    assert check("E1", 3, lambda a: a == 4, "Count the corners.") is False
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["○ E1: open. Count the corners.", "● E1: right.", "● E1: not yet. Count the corners."]


def test_an_answer_of_the_wrong_kind_is_wrong_and_says_why(capsys):
    assert check("E2", "four", lambda a: a + 1 == 5, "Give a number.") is False
    assert "TypeError" in capsys.readouterr().out


def test_an_array_answer_is_reduced_by_the_test_itself():
    import numpy as np

    assert check("E3", np.ones(3), lambda a: a, "One number.") is False  # truth of an array is ambiguous: ValueError
    assert check("E3", np.ones(3), lambda a: a.all(), "All ones.") is True
