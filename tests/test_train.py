"""`foundling train`: settings from a file, what it prints, exit codes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling import cli
from foundling.commands.train import read_settings
from foundling.errors import ParameterError

TINY: dict[str, Any] = {
    "objective": "odin", "options": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3},
    "images": 5, "image_side": 96, "steps": 3, "warmup": 1, "batch": 4, "masks": 3, "span_side": 48, "view_side": 32,
    "hidden": 16, "projection": 8, "probes": 2, "precision": "fp32",
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_odin_on_scenes_in_two_parts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "runs" / "a"
    command = ["train", str(file), "--out", str(out), "--cpu"]
    assert cli.main([*command, "--minutes", "1e-9"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}.safetensors: 2 of 3 steps left, run again to go on\n"
    assert "odin" in printed.err and "loss" in printed.err
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"{out}.safetensors: all steps done\n"
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.history.csv", "a.safetensors", "a.state"]
    assert cli.main([*command, "--set", "masks=4"]) == 2
    assert "a.state belongs to a run with other settings (masks = 3, not 4)" in capsys.readouterr().err


def test_settings_of_the_command_line_win(file: Path) -> None:
    settings = read_settings(file, ["steps=9", "seed=4"])
    assert (settings.steps, settings.seed, settings.batch) == (9, 4, 4)


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        ("steps: 3\nsteps: 4\n", [], r"tiny\.yaml is not a readable YAML file: .*'steps' is there twice"),
        ("- steps\n", [], r"tiny\.yaml is not a training file: it needs keys such as objective, seed"),
        ("learning_rate: 1e-3\n", [], r"tiny\.yaml: learning_rate = '1e-3' is text, not a number"),
        (
            "steps: 3\nwarmup: 1\nmaks: 3\n",
            [],
            r"tiny\.yaml: unknown parameter .maks. \(value 3\): did you mean",
        ),
        ("steps: 300\n", ["steps"], r"--set steps: write KEY=VALUE"),
        ("steps: 300\n", ["steps=many"], r"steps = 'many', of type str, is not legal"),
    ],
)
def test_what_is_wrong_with_the_settings_is_named(file: Path, content: str, given: list[str], message: str) -> None:
    file.write_text(content)
    with pytest.raises(ParameterError, match=message):
        read_settings(file, given)


def test_a_file_that_is_not_there_and_no_time_at_all(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(file.with_name("none.yaml")), "--out", "x"]) == 2
    assert "none.yaml cannot be read (No such file or directory): check the path" in capsys.readouterr().err
    assert cli.main(["train", str(file), "--out", "x", "--minutes", "0"]) == 2
    assert "--minutes 0.0: give more than 0" in capsys.readouterr().err
