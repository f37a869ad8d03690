"""What refinement is told: phases by step, presets, and what is refused."""

from typing import Any

import pytest

from foundling.checking import check_model
from foundling.commands.train import read_settings
from foundling.errors import ParameterError
from foundling.training.recipes import RECIPES, recipe
from foundling.training.refinement.settings import Refinement, RefinementOnDataset
from foundling.training.refinement.task import learning_rate


def test_phases_say_what_a_step_moves() -> None:
    settings = Refinement(phases=[{"h": 2}, {"f": 3}, {"h": 1}, {"f": 1}])
    assert settings.steps == 7
    assert [settings.moved(step) for step in range(9)] == ["h", "h", "f", "f", "f", "h", "f", "f", "f"]
    assert [settings.refined_steps(step) for step in range(8)] == [0, 0, 0, 1, 2, 3, 3, 4]


def test_rates_of_both_networks() -> None:
    """f's falls over its own steps alone."""
    phases: Any = [{"h": 1}, {"f": 3}, {"h": 1}, {"f": 1}]
    settings = Refinement(phases=phases, learning_rate=0.5, refine_rate=0.8)
    assert [learning_rate(step, settings) for step in range(6)] == [0.5, 0.8, 0.8, 0.8, 0.5, 0.8]
    falling = settings.model_copy(update={"refine_power": 2.0})
    rates = [learning_rate(step, falling) for step in range(6)]
    assert rates == pytest.approx([0.5, 0.8, 0.8 * (3 / 4) ** 2, 0.8 / 4, 0.5, 0.8 / 16])


@pytest.mark.parametrize("method", ["lost", "tokencut"])
def test_the_presets_differ_where_paper_and_code_do(method: str) -> None:
    models = {"refinement": Refinement}
    paper, code = (recipe({"settings": f"refine_{method}_{which}"}, "test", models) for which in ("paper", "code"))
    told = {name for name in Refinement.model_fields if getattr(paper, name) != getattr(code, name)}
    assert told - {"export_at", "save_every", "look_every"} == {
        "batch", "class_weight", "refine_rate", "regulariser", "phases", "steps",
    }  # fmt: skip
    assert (paper.method, paper.boxes, paper.side, paper.network) == (method, 10, 304, "resnet50")
    assert paper.steps == 13000 and code.steps == 70 * 62
    assert [code.moved(62 * epoch) for epoch in (0, 9, 10, 54, 55, 64, 65, 69)] == list("hhffhhff")


def test_the_command_reads_recipes() -> None:
    given = ["dataset=voc07", "images=0", "phases=[{h: 4}]", "export_at=[]"]
    settings = read_settings(RECIPES / "refine_lost_paper.yaml", given)
    assert isinstance(settings, RefinementOnDataset)
    assert (settings.steps, settings.dataset, settings.images) == (4, "voc07", 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes": 0}, r"boxes = 0, of type int, is not legal: it should be greater than or equal to 1 \(k, boxes"),
        ({"phases": []}, "phases = .* is not legal"),
        ({"phases": [{"g": 3}]}, "should be 'h' or 'f'"),
        ({"phases": [{"h": 3, "f": 2}]}, "at most 1 item"),
        ({"phases": [{"h": 0}]}, "greater than or equal to 1"),
        ({"phases": [["h", 3]]}, "phases"),
        ({"steps": 7, "phases": [{"h": 3}]}, r"steps = 7, but phases = \[\{'h': 3\}\] have 3: leave steps out"),
        ({"steps": 7}, "steps = 7, but phases = .* leave steps out"),
        ({"warmup": 3}, "warmup = 3, of type int, is not legal"),
        ({"min_area": 0.9, "max_area": 0.5}, "min_area = 0.9 must be at most max_area = 0.5"),
        ({"l1_weight": 0.0, "giou_weight": 0.0}, "l1_weight and giou_weight are both 0: nothing would say where"),
        ({"fresh": True}, "fresh and mask_weight are for method segmenter, not lost"),
        ({"mask_weight": 0.5, "method": "tokencut"}, "fresh and mask_weight are for method segmenter, not tokencut"),
        ({"method": "segmenter", "discovery": {"k": 1}}, "discovery = .* is for methods lost and tokencut"),
        ({"method": "lots"}, "method = 'lots'.*should be 'lost', 'tokencut' or 'segmenter'"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        check_model(Refinement, given, "test")
