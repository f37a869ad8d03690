"""Bringing datasets: from a server on this machine that hands out small archives of the published form."""

import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from torchvision.datasets.voc import DATASET_YEAR_DICT

from foundling.datasets import download, open_dataset, open_videos
from foundling.datasets.sources import SOURCES, Archive, Part, Source, coco_source
from foundling.errors import DataMissing, ParameterError
from small_datasets import VocObject, coco_annotation, make_coco, make_davis, make_voc


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[SimpleNamespace]:
    """Serves ``files``; ``cut`` drops connections after so many bytes; ``ranges`` may be switched off."""
    state = SimpleNamespace(files={}, cut=None, ranges=True, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(send=False)

        def do_GET(self):
            self.answer(send=True)

        def answer(self, send):
            wanted = self.headers.get("Range")
            state.requests.append((self.command, wanted))
            body = state.files.get(self.path.rsplit("/", 1)[-1])
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if send:
                self.wfile.write(body[start : None if state.cut is None else start + state.cut])

        def log_message(self, *_):
            """Keep the test's output clean."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def tar_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    return buffer.getvalue()


def zip_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, arcname=path.relative_to(folder))
    return buffer.getvalue()


def publish(server, name, body) -> Archive:
    server.files[name] = body
    return Archive(f"{server.url}/{name}", hashlib.md5(body).hexdigest(), len(body))


@pytest.fixture
def voc07(server, tmp_path, monkeypatch) -> SimpleNamespace:
    """VOC07 in small: two archives, the images of trainval and of test."""
    archives = []
    for split, images in (("trainval", ["000005", "000007"]), ("test", ["000001"])):
        folder = tmp_path / split
        make_voc(folder / "VOCdevkit", {i: [VocObject("dog", (1, 1, 9, 9))] for i in images}, split=split)
        archives.append(publish(server, f"VOC{split}.tar", tar_of(folder)))
    part = Part(
        tuple(archives),
        "VOCdevkit/VOC2007",
        SOURCES["voc07"].parts[0].places,
        (("JPEGImages", 3), ("Annotations", 3)),
    )
    monkeypatch.setitem(SOURCES, "voc07", Source((part,), "http://page", "research"))
    data = tmp_path / "data"
    monkeypatch.setenv("FOUNDLING_DATA", str(data))
    return SimpleNamespace(server=server, data=data, archives=archives, part=part)


def row(name):
    return next(row for row in download.expected() if row.name == name)


def test_voc_is_downloaded_unpacked_and_opened(voc07):
    before = row("voc07")
    assert (before.present, before.where) == (False, voc07.data / "voc/VOCdevkit/VOC2007")
    assert before.command == "foundling data voc07"
    assert f"missing: {before.where}" in before.note
    assert download.download("voc07") == [before.where]
    assert [sample.name for sample in open_dataset("voc07")] == ["000005.jpg", "000007.jpg"]
    assert len(open_dataset("voc07", split="test")) == 1
    assert row("voc07").present
    assert list((voc07.data / "archives").iterdir()) == []
    assert sorted(path.name for path in voc07.data.iterdir()) == ["archives", "voc"]
    asked = len(voc07.server.requests)
    download.download("voc07")
    assert len(voc07.server.requests) == asked


def test_an_interrupted_download_resumes(voc07, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 1000)
    voc07.server.cut = 3000
    with pytest.raises(DataMissing, match=r"VOCtrainval\.tar: not downloaded \("):
        download.download("voc07")
    part = voc07.data / "archives/VOCtrainval.tar.part"
    assert part.stat().st_size == 3000
    voc07.server.cut = None
    voc07.server.requests.clear()
    download.download("voc07")
    assert ("GET", "bytes=3000-") in voc07.server.requests
    assert len(open_dataset("voc07")) == 2


def test_a_part_that_cannot_be_resumed_starts_anew(voc07):
    part = voc07.data / "archives/VOCtrainval.tar.part"
    part.parent.mkdir(parents=True)
    body = voc07.server.files["VOCtrainval.tar"]
    for content, ranges in ((body[:100], False), (body + b"more", True), (body, True)):
        part.write_bytes(content)
        voc07.server.ranges = ranges
        voc07.server.requests.clear()
        download.download("voc07")
        gets = [wanted for method, wanted in voc07.server.requests if method == "GET"]
        assert gets == ([None] if content == body else [None, None])  # the last part was whole
        assert len(open_dataset("voc07")) == 2
        shutil.rmtree(voc07.data / "voc")


def test_a_wrong_checksum_is_refused_and_leaves_nothing(voc07):
    body = voc07.server.files["VOCtest.tar"]
    voc07.server.files["VOCtest.tar"] = body[:-1] + b"x"
    with pytest.raises(DataMissing, match=r"VOCtest\.tar: its MD5 is not [0-9a-f]{32}, so it is damaged; fetch it"):
        download.download("voc07")
    assert [path.name for path in (voc07.data / "archives").iterdir()] == ["VOCtrainval.tar"]
    assert not (voc07.data / "voc").exists()
    voc07.server.files["VOCtest.tar"] = body
    download.download("voc07")
    assert row("voc07").present


def test_without_network_the_error_says_what_to_do_and_a_file_put_there_is_used(voc07):
    files, voc07.server.files = voc07.server.files, {}
    with pytest.raises(DataMissing) as caught:
        download.download("voc07")
    target = voc07.data / "archives/VOCtrainval.tar"
    for phrase in (voc07.archives[0].url, "404", f"put it at {target}", "run again: foundling data voc07"):
        assert phrase in str(caught.value)
    for name, body in files.items():
        (target.parent / name).write_bytes(body)
    voc07.server.requests.clear()
    download.download("voc07")
    assert voc07.server.requests == []
    assert target.exists()  # what a user has put there stays


def test_an_unreachable_server(voc07, monkeypatch):
    archive = Archive("http://127.0.0.1:1/VOCtrainval.tar", "0" * 32, 10)
    part = Part((archive,), voc07.part.inside, voc07.part.places)
    monkeypatch.setitem(SOURCES, "voc07", Source((part,), "", ""))
    with pytest.raises(DataMissing, match=r"http://127\.0\.0\.1:1/VOCtrainval\.tar: not downloaded .*fetch it in"):
        download.download("voc07")


def test_something_incomplete_in_its_place_is_not_overwritten(voc07):
    home = make_voc(voc07.data / "voc/VOCdevkit", {"000005": []})
    assert not row("voc07").present
    assert f"{home / 'JPEGImages'} holds 1 of 3 files" in row("voc07").note
    with pytest.raises(DataMissing, match=r"holds 1 of 3 files.*: move it away, then run again: foundling data voc07"):
        download.download("voc07")


def test_a_dataset_in_another_known_layout_is_found(voc07):
    make_voc(voc07.data / "voc", {"000005": [], "000007": [], "000001": []})
    assert (row("voc07").present, row("voc07").where) == (True, voc07.data / "voc/VOC2007")


def evil_tar(kind) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo({"up": "../../evil", "absolute": "/evil"}.get(kind, "link"))
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/"
        tar.addfile(member, io.BytesIO(b""))
    return buffer.getvalue()


def evil_zip(_kind) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil", "")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "kind"), [(evil_tar, "up"), (evil_tar, "absolute"), (evil_tar, "link"), (evil_zip, "")]
)
def test_archives_that_lead_outside_are_refused(voc07, monkeypatch, make, kind):
    archive = publish(voc07.server, "evil.bin", make(kind))
    part = Part((archive,), "x", ("x",))
    monkeypatch.setitem(SOURCES, "voc07", Source((part,), "", ""))
    with pytest.raises(DataMissing, match=r"evil\.bin: member '.*' leads outside the archive or is a link"):
        download.download("voc07")
    assert sorted(path.name for path in voc07.data.rglob("*")) == ["archives", "evil.bin"]
    assert not (voc07.data.parent / "evil").exists()


def test_archives_with_the_wrong_content(voc07, monkeypatch):
    for body, counts, message in (
        (b"no archive at all", (), r"a\.bin: not a readable archive"),
        (evil_zip("")[:30], (), r"a\.bin: not a readable archive"),
        (tar_of(voc07.data.parent / "test"), (), r"a\.bin: no x in there"),
        (tar_of(voc07.data.parent / "test"), (("", 9),), r"a\.bin: 3 files in VOCdevkit/VOC2007/, where 9 should be"),
    ):
        archive = publish(voc07.server, "a.bin", body)
        part = Part((archive,), voc07.part.inside if counts else "x", ("x",), counts)
        monkeypatch.setitem(SOURCES, "voc07", Source((part,), "", ""))
        with pytest.raises(DataMissing, match=message):
            download.download("voc07")
        (voc07.data / "archives/a.bin").unlink()
        assert sorted(path.name for path in voc07.data.iterdir()) == ["archives"]


def test_what_a_killed_run_left_is_cleared(voc07):
    left = voc07.data / ".unpacking-voc07/VOCdevkit/VOC2007/JPEGImages/stray.jpg"
    left.parent.mkdir(parents=True)
    left.touch()
    download.download("voc07")
    assert not (voc07.data / "voc/VOCdevkit/VOC2007/JPEGImages/stray.jpg").exists()


def test_a_full_disk_is_reported_before_anything_is_fetched(voc07, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataMissing, match=r"0\.0 GB free, but 0\.0 GB are needed.*set FOUNDLING_DATA"):
        download.download("voc07")
    assert voc07.server.requests == []


def test_coco_zips_each_give_their_part(server, tmp_path, monkeypatch):
    inside = tmp_path / "published"
    annotations = inside / "annotations/annotations/instances_val2017.json"
    make_coco(inside / "images/val2017", {1: "1.jpg", 2: "2.jpg"}, [coco_annotation(1, (0, 0, 5, 5))], annotations)
    (annotations.parent / "captions_val2017.json").write_text("{}")
    images = publish(server, "val2017.zip", zip_of(inside / "images"))
    texts = publish(server, "annotations_trainval2017.zip", zip_of(inside / "annotations"))
    monkeypatch.setitem(SOURCES, "coco", coco_source("val2017", 2, images, texts))
    places = download.download("coco", root=tmp_path / "data")
    assert [place.relative_to(tmp_path / "data").as_posix() for place in places] == [
        "coco/val2017",
        "coco/annotations/instances_val2017.json",
    ]
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    dataset = open_dataset("coco", split="val2017")
    assert (len(dataset), len(dataset[0].target)) == (2, 1)
    assert row("coco").present
    places[0].joinpath("2.jpg").unlink()
    assert "holds 1 of 2 files" in row("coco").note


def test_all_that_is_expected_is_listed_with_licence_and_page(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    rows = {row.name: row for row in download.expected()}
    assert set(rows) == {*SOURCES, "scenes", "scenes_video"}
    assert not any(row.present for row in rows.values())
    assert (rows["voc07"].size, rows["coco20k"].size) == ("0.9 GB", "13.8 GB")
    assert all(row.licence and row.where.is_relative_to(tmp_path) for row in rows.values())
    assert all(rows[name].page.startswith("http") for name in SOURCES)


def test_scenes_are_listed_and_made(tmp_path, monkeypatch):
    monkeypatch.setattr("foundling.datasets.scenes.SPLITS", {"single_val": 2, "multi_val": 1})
    places = download.download("scenes", root=tmp_path)
    assert [len(list(place.glob("*.png"))) for place in places] == [2, 1]
    scenes = next(row for row in download.expected(tmp_path) if row.name == "scenes")
    assert scenes.present
    assert places[0].name in scenes.note


def test_videos_of_scenes_are_listed_and_made(tmp_path, monkeypatch):
    monkeypatch.setattr("foundling.datasets.scenes_video.SPLITS", {"val": 1})
    monkeypatch.setattr("foundling.datasets.scenes_video.LENGTH", 3)
    places = download.download("scenes_video", root=tmp_path)
    assert [len(list(place.rglob("*.jpg"))) for place in places] == [3]
    listed = next(row for row in download.expected(tmp_path) if row.name == "scenes_video")
    assert (listed.present, listed.note) == (True, f"made: {places[0].name}")


def test_davis_is_downloaded_and_opened(server, tmp_path, monkeypatch):
    make_davis(tmp_path / "inside" / "DAVIS", {"bear": 4})
    body = zip_of(tmp_path / "inside")
    server.files["davis.zip"] = body
    archive = Archive(f"{server.url}/davis.zip", hashlib.sha256(body).hexdigest(), len(body))
    part = replace(SOURCES["davis"].parts[0], archives=(archive,), counts=(("JPEGImages/480p", 4),))
    monkeypatch.setitem(SOURCES, "davis", replace(SOURCES["davis"], parts=(part,)))
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    with pytest.raises(DataMissing, match="get it with: foundling data davis"):
        open_videos("davis")
    assert download.download("davis") == [tmp_path / "data/davis/DAVIS"]
    assert [video.name for video in open_videos("davis")] == ["bear"]
    (tmp_path / "data/davis/DAVIS/JPEGImages/480p/bear/00002.jpg").unlink()
    assert "JPEGImages/480p holds 3 of 4 files" in row("davis").note


def test_a_damaged_davis(server, tmp_path, monkeypatch):
    server.files["davis.zip"] = b"not what was published"
    part = replace(SOURCES["davis"].parts[0], archives=(Archive(f"{server.url}/davis.zip", "0" * 64, 22),))
    monkeypatch.setitem(SOURCES, "davis", replace(SOURCES["davis"], parts=(part,)))
    with pytest.raises(DataMissing, match=r"davis\.zip: its SHA256 is not 0{64}, so it is damaged; fetch it"):
        download.download("davis", root=tmp_path)


def test_what_has_no_archive_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    where = tmp_path / "uvo/UVOv1.0"
    assert (row("uvo").present, row("uvo").size, row("uvo").where) == (False, "by hand", where)
    with pytest.raises(
        DataMissing, match=r"uvo has no archive to fetch \(missing: .*UVOv1\.0\): .*video2frames\.py.*https"
    ):
        download.download("uvo")
    make_coco(where / "uvo_videos_sparse_frames", {1: "a/0.png"}, [], where / "FrameSet/UVO_frame_val.json")
    with pytest.raises(DataMissing, match="uvo_videos_sparse_frames holds 1 of 7,356 files"):
        download.download("uvo")
    part = replace(SOURCES["uvo"].parts[0], counts=(("uvo_videos_sparse_frames", 1),))
    monkeypatch.setitem(SOURCES, "uvo", replace(SOURCES["uvo"], parts=(part,)))
    assert download.download("uvo") == [where]  # there already: nothing to do


def test_an_unknown_name(tmp_path):
    with pytest.raises(ParameterError, match=r"unknown dataset 'voc': choose one of voc07, .*, uvo, imagenet, scenes"):
        download.download("voc", root=tmp_path)


def test_checksums_agree_with_torchvision():
    known = {entry["url"].rsplit("/", 1)[-1]: entry["md5"] for entry in DATASET_YEAR_DICT.values()}
    archives = [a for name in ("voc07", "voc12") for part in SOURCES[name].parts for a in part.archives]
    assert [known[archive.file] for archive in archives] == [archive.checksum for archive in archives]
    for source in SOURCES.values():
        for archive in (archive for part in source.parts for archive in part.archives):
            assert (archive.algorithm, len(archive.checksum)) in (("md5", 32), ("sha256", 64))
            assert int(archive.checksum, 16)
