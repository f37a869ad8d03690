"""A file appears whole or not at all, whatever happens while it is written."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundling.errors import FoundlingError
from foundling.files import write_bytes, writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_file_takes_the_place_of_the_old_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_bytes(path, b"old")
    with writing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == path.parent
    assert path.read_text() == "new"
    assert names(path.parent) == ["b.txt"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "b.txt", b"old")
    with pytest.raises(ZeroDivisionError), writing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files: what a write meets is the error of a full disk, but for its number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "b.txt", b"old")
    with pytest.raises(FoundlingError, match=r"b\.txt cannot be written \(File too large\): make room.*is unchanged$"):
        write_bytes(path, bytes(5000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["b.txt"]


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(FoundlingError, match=r"a/b\.txt cannot be written \((Not a directory|File exists)\)"):
        write_bytes(tmp_path / "a" / "b.txt", b"new")
