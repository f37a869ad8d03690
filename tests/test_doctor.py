"""`foundling doctor`: each check tells a sound installation from a broken one."""

import sys
from dataclasses import replace
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from foundling import cli, doctor
from foundling.backbones import BACKBONES
from foundling.doctor import Check
from foundling.errors import WeightsError
from foundling.paths import EMBEDDED_WEIGHTS
from foundling.saliency import NETWORKS


def test_this_installation_is_sound():
    checks = list(doctor.examine())
    assert [check for check in checks if check.level == "fail"] == []
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert set(names) >= {Requirement(line).name for line in requires("foundling")}
    assert set(names) >= {"Python", "cpu", "notebook kernel", "embedded weights", "scenes", "data folder"}


@pytest.mark.parametrize(
    "found, level", [("2.6.0", "ok"), ("2.11.0+cu130", "ok"), ("2.12.0", "fail"), ("2.5.9", "fail"), ("", "warn")]
)
def test_versions_are_compared_as_versions(found, level):
    check = doctor.check_version("torch", found, SpecifierSet(">=2.6,<2.12"))
    assert check.level == level
    assert level == "ok" or "2.12" in check.text


def test_a_dependency_that_is_absent():
    check = doctor.check_dependency(Requirement("no-such-package>=1"))
    assert check.level == "fail"
    assert "No module named 'no_such_package'" in check.text and "make env" in check.text


def test_a_dependency_that_is_damaged(tmp_path, monkeypatch):
    (tmp_path / "damaged_package.py").write_text("raise OSError('libgone.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    check = doctor.check_dependency(Requirement("damaged_package"))
    assert check.level == "fail" and "libgone.so" in check.text


def test_opencv_without_contrib(monkeypatch):
    import cv2

    monkeypatch.delattr(cv2, "ximgproc")
    check = doctor.check_opencv()
    assert check.level == "fail" and "cv2.ximgproc is missing" in check.text


def test_detectron2_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)  # importing it fails as if it were not there
    check = doctor.check_detectron2()
    assert check.level == "none" and "optional" in check.text


def test_what_a_check_raises_is_its_failure():
    def broken():
        raise WeightsError("scenes_odin.safetensors is missing from the package")

    assert doctor.guarded("embedded weights", broken) == Check(
        "fail", "embedded weights", "WeightsError: scenes_odin.safetensors is missing from the package"
    )


def test_every_file_of_weights_in_the_package_is_looked_at():
    check = doctor.check_embedded()
    files = {path.stem for path in EMBEDDED_WEIGHTS.glob("*.safetensors")}
    assert files >= {"scenes_odin", "scenes_saliency"} and check.level == "ok"
    assert all(f"{name} loads, checksum " in check.text for name in files)


@pytest.mark.parametrize(("networks", "name"), [(BACKBONES, "scenes_odin"), (NETWORKS, "scenes_saliency")])
def test_other_embedded_weights_are_noticed(monkeypatch, networks, name):
    monkeypatch.setitem(networks, name, replace(networks[name], sha256="0" * 64))
    check = doctor.guarded("embedded weights", doctor.check_embedded)
    assert check.level == "fail" and name in check.text and "SHA-256 should start with 000" in check.text


def test_a_data_folder_to_be_made(tmp_path):
    check = doctor.check_data_folder(tmp_path / "not" / "yet")
    assert check.level == "ok" and str(tmp_path / "not" / "yet") in check.text
    assert not (tmp_path / "not").exists()


def test_a_data_folder_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").touch()
    check = doctor.check_data_folder(tmp_path / "file" / "data")
    assert check.level == "fail" and "FOUNDLING_DATA" in check.text


@pytest.mark.parametrize(
    "level, code, line",
    [("none", 0, "All is well."), ("ok", 0, "All is well."), ("warn", 0, "Usable"), ("fail", 1, "See")],
)
def test_the_exit_code_is_that_of_the_worst_check(monkeypatch, capsys, level, code, line):
    monkeypatch.setattr(doctor, "examine", lambda: iter([Check(level, "this", "so"), Check("ok", "that", "fine")]))
    assert cli.main(["doctor"]) == code
    out = capsys.readouterr().out
    assert f"[{level:<4}] this: so\n[ok  ] that: fine\n" in out and line in out
