"""Weights that are put by hand, downloaded from a server on this machine, refused, damaged or out of reach."""

import dataclasses
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from foundling import paths
from foundling.backbones import BACKBONES, Entry, load_backbone
from foundling.backbones import weights as fetching
from foundling.backbones.networks import build_network
from foundling.errors import WeightsError

Small = Callable[..., Entry]


class Server(ThreadingHTTPServer):
    """Answers with ``pages[path]`` (bytes, or a status) and remembers what was asked for."""

    pages: dict[str, bytes | int]
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path, 404)
        self.server.asked.append(self.path)
        self.send_response(page if isinstance(page, int) else 200)
        body = b"" if isinstance(page, int) else page
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.pages, server.asked = {}, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(fetching, "_HUB", f"http://127.0.0.1:{server.server_port}/timm")
        yield server
        server.shutdown()


def checkpoint(entry: Entry) -> bytes:
    file = io.BytesIO()
    torch.save(build_network(entry, seed=4).state_dict(), file)
    return file.getvalue()


def at(server: Server, entry: Entry, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Entry:
    url = f"http://127.0.0.1:{server.server_port}/{entry.file}"
    monkeypatch.setitem(BACKBONES, entry.name, dataclasses.replace(entry, url=url, **changes))
    return BACKBONES[entry.name]


def test_put_by_hand(small: Small) -> None:
    entry = small("dino_vits16")
    path = paths.weights_dir() / "dino_deitsmall16_pretrain.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint(entry))
    backbone = load_backbone("dino_vits16", device="cpu")
    assert backbone.weights == str(path)
    assert backbone.checksum == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    row = next(r for r in fetching.expected_weights() if r["name"] == "dino_vits16")
    assert (row["present"], row["where"]) == (True, str(path))


def test_downloaded_once(small: Small, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = at(server, small("dino_vits16"), monkeypatch)
    server.pages["/dino_deitsmall16_pretrain.pth"] = checkpoint(entry)
    first = load_backbone("dino_vits16", device="cpu")
    second = load_backbone("dino_vits16", device="cpu")
    assert server.asked == ["/dino_deitsmall16_pretrain.pth"]
    assert first.checksum == second.checksum
    assert sorted(p.name for p in paths.weights_dir().iterdir()) == ["dino_deitsmall16_pretrain.pth"]


def test_the_hub_is_the_second_address(small: Small, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save

    entry = at(server, small("dino_vits16"), monkeypatch)
    server.pages["/dino_deitsmall16_pretrain.pth"] = 503
    hub = "/timm/vit_small_patch16_224.dino/resolve/main/model.safetensors"
    server.pages[hub] = save(build_network(entry, seed=4).state_dict())
    backbone = load_backbone("dino_vits16", device="cpu")
    assert server.asked == ["/dino_deitsmall16_pretrain.pth", hub]
    assert backbone.weights == str(paths.weights_dir() / "vit_small_patch16_224.dino.safetensors")


def test_a_damaged_download_is_removed(small: Small, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = at(server, small("deit_vits16"), monkeypatch, timm=None)
    server.pages[f"/{entry.file}"] = b"something else"
    found = hashlib.sha256(b"something else").hexdigest()
    told = rf"{entry.file}: the file's SHA-256 should start with cd65a155 and is {found}; it was removed: try again"
    with pytest.raises(WeightsError, match=told):
        load_backbone("deit_vits16")
    assert not list(paths.weights_dir().iterdir())


def test_another_file_put_by_hand_under_the_name_is_refused_and_kept(small: Small) -> None:
    entry = small("deit_vits16")
    path = paths.weights_dir() / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint(entry))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError) as caught:
        load_backbone("deit_vits16", device="cpu")
    told = f"deit_vits16: {path}: the file's SHA-256 should start with cd65a155 and is {found}; remove it and get it "
    assert str(caught.value).startswith(told) and str(entry.url) in str(caught.value)
    assert path.is_file()
    assert load_backbone("deit_vits16", weights=path, device="cpu").weights == str(path)  # asked for by its path


def test_the_right_file_is_taken_and_the_hubs_file_has_no_known_hash(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    entry = small("deit_vits16")
    content = checkpoint(entry)
    known = dataclasses.replace(entry, sha256=hashlib.sha256(content).hexdigest()[:8])
    monkeypatch.setitem(BACKBONES, "deit_vits16", known)
    hub = paths.weights_dir() / f"{entry.timm}.safetensors"
    hub.parent.mkdir(parents=True)
    save_file(build_network(entry, seed=4).state_dict(), hub)
    assert load_backbone("deit_vits16", device="cpu").weights == str(hub)
    (paths.weights_dir() / entry.file).write_bytes(content)
    assert load_backbone("deit_vits16", device="cpu").weights == str(paths.weights_dir() / entry.file)


def test_gated(small: Small, server: Server) -> None:
    small("dinov3_vits16")
    hub = "/timm/vit_small_patch16_dinov3_qkvb.lvd1689m/resolve/main/model.safetensors"
    server.pages[hub] = 401
    with pytest.raises(WeightsError) as caught:
        load_backbone("dinov3_vits16")
    message = str(caught.value)
    assert server.asked == [hub]
    assert f"127.0.0.1:{server.server_port} refuses without an accepted licence" in message
    again = f"To get them: foundling weights dinov3_vits16 (first accept the licence at http://127.0.0.1:{server.server_port}/"
    assert again in message and "and run `hf auth login`); or by hand: download" in message
    place = paths.weights_dir() / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    assert f"from https://ai.meta.com/dinov3 and put it at {place}" in message


def test_no_network() -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone("dino_vits16")
    message = str(caught.value)
    place = paths.weights_dir() / "dino_deitsmall16_pretrain.pth"
    assert f"dino_vits16: the weights are not at {place}" in message
    assert "no connection to dl.fbaipublicfiles.com; no connection to huggingface.co" in message
    url = "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"
    by_hand = f"curl -L --create-dirs -o '{place}' {url}"
    assert f"\nTo get them: foundling weights dino_vits16; or by hand: {by_hand}\n" in message
    assert "the backbone scenes_odin comes with the package (it was trained on synthetic scenes" in message


def test_a_host_that_does_not_answer(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listening socket that is never served: the download gives up after its timeout."""
    import socket

    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        entry = dataclasses.replace(small("dino_vits16"), url=f"http://127.0.0.1:{port}/w.pth", timm=None)
        monkeypatch.setitem(BACKBONES, "dino_vits16", entry)
        with pytest.raises(WeightsError, match=rf"127.0.0.1:{port} did not answer within 0.2 s"):
            load_backbone("dino_vits16")


@pytest.mark.parametrize("name", ["selfpatch_vits16", "densecl_resnet101"])
def test_only_by_hand(name: str) -> None:
    entry = BACKBONES[name]
    with pytest.raises(WeightsError) as caught:
        load_backbone(name)
    place = paths.weights_dir() / entry.file
    message = str(caught.value)
    assert f"\nTo get them: by hand: download {entry.file} from {entry.page} and put it at {place}\n" in message
    assert f"foundling weights {name}" not in message


@pytest.mark.parametrize("name", ["scenes_odin", "scenes_mae"])
def test_embedded_weights_need_no_network(name: str) -> None:
    """The package's own checkpoints: at most 6 MB, three heads, four blocks of 8-pixel patches."""
    backbone = load_backbone(name, device="cpu")
    file = paths.EMBEDDED_WEIGHTS / f"{name}.safetensors"
    assert file.stat().st_size < 6e6
    assert backbone.weights == str(file)
    assert backbone.checksum == hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    assert (backbone.patch_size, backbone.channels, backbone.heads, backbone.blocks) == (8, 192, 3, 4)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in backbone.network.parameters())


def test_embedded_weights_of_objects_need_no_network() -> None:
    backbone = load_backbone("scenes_objects", device="cpu")
    assert (backbone.patch_size, backbone.channels, backbone.family) == (32, 224, "cnn")
    assert (paths.EMBEDDED_WEIGHTS / "scenes_objects.safetensors").stat().st_size < 3e6


def test_embedded_weights_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(paths, "EMBEDDED_WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match=r"scenes_odin\.safetensors is missing from the package"):
        load_backbone("scenes_odin")
