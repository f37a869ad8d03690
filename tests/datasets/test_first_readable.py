"""The first images that can be read, with what was passed over."""

from PIL import Image

from foundling.datasets import first_readable, open_dataset


def test_broken_files_are_passed_over_and_named(tmp_path):
    for name in ("b", "d", "e"):
        Image.new("RGB", (4, 3), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "a.png").touch()
    (tmp_path / "c.png").write_text("no picture")
    dataset = open_dataset("folder", root=tmp_path)
    shown, images, failures = first_readable(dataset, 2)
    assert [sample.name for sample in shown] == ["b.png", "d.png"]
    assert [image.size for image in images] == [(4, 3), (4, 3)]
    assert [(failure.name, failure.index) for failure in failures] == [("a.png", 0), ("c.png", 2)]
    assert "a.png" in failures[0].error


def test_fewer_than_asked_for_and_none_at_all(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "only.png")
    dataset = open_dataset("folder", root=tmp_path)
    assert len(first_readable(dataset, 5)[0]) == 1
    assert first_readable(dataset, 0) == ([], [], [])
