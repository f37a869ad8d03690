"""The printed steps of proposals, as the paper's tables have them."""

import pytest

from foundling.report.beside_proposals import printed_steps


def test_the_steps_are_those_of_the_tables():
    four = printed_steps("Table 4")
    assert [row["k"] for row in four] == ["2", "3", "4", "5", "2-5"]
    assert four[-1] == {
        "k": "2-5", "AP": 4.5, "AP_S": 1.4, "AP_M": 6.0, "AP_L": 12.8,
        "AR": 16.5, "AR_S": 1.7, "AR_M": 19.1, "AR_L": 38.6
    }  # fmt: skip
    five = printed_steps("Table 5")
    assert [(row["saliency"], row["AP50"], row["AP"]) for row in five] == [
        ("none", 2.3, 0.6), ("MAE", 5.9, 2.2), ("DINO", 10.7, 4.5)
    ]  # fmt: skip
    assert [row["component splitting"] for row in printed_steps("Table 6")] == ["no", "yes"]
    with pytest.raises(KeyError):
        printed_steps("Table 1")
