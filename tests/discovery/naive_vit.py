"""A small vision transformer in numpy and double precision, written from its definition, and weights for it.

No torch and no timm: what it gives is an independent check of the whole way from pixels to boxes.
"""

import math

import numpy as np

DIM, DEPTH, HEADS, PATCH, SIDE = 192, 4, 3, 8, 96  # the architecture of the package's own network
CELLS = SIDE // PATCH
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

State = dict[str, np.ndarray]


def draw_weights(seed: int) -> State:
    """Weights drawn with numpy, whose streams are the same on every machine; names as in timm's state dict."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, std: float) -> np.ndarray:
        return (random.standard_normal(shape) * std).astype(np.float32)

    state = {
        "cls_token": normal(1, 1, DIM, std=0.02),
        "pos_embed": normal(1, CELLS**2 + 1, DIM, std=0.1),
        "patch_embed.proj.weight": normal(DIM, 3, PATCH, PATCH, std=1 / PATCH),
        "patch_embed.proj.bias": np.zeros(DIM, np.float32),
        "norm.weight": np.ones(DIM, np.float32),
        "norm.bias": np.zeros(DIM, np.float32),
    }
    for i in range(DEPTH):
        sizes = {
            "attn.qkv": (3 * DIM, DIM),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (4 * DIM, DIM),
            "mlp.fc2": (DIM, 4 * DIM),
        }
        for name, (rows, columns) in sizes.items():
            state[f"blocks.{i}.{name}.weight"] = normal(rows, columns, std=columns**-0.5)
            state[f"blocks.{i}.{name}.bias"] = np.zeros(rows, np.float32)
        for name in ("norm1", "norm2"):
            state[f"blocks.{i}.{name}.weight"] = np.ones(DIM, np.float32)
            state[f"blocks.{i}.{name}.bias"] = np.zeros(DIM, np.float32)
    return state


def naive_forward(state: State, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys [patch, channel] and CLS attention [head, patch] of the last block, for an RGB image padded to 96×96."""
    pixels = np.zeros((SIDE, SIDE, 3))
    pixels[: image.shape[0], : image.shape[1]] = (image / 255 - MEAN) / STD
    kernel = state["patch_embed.proj.weight"].astype(np.float64)
    patches = [
        [np.sum(kernel[d] * pixels[y : y + PATCH, x : x + PATCH].transpose(2, 0, 1)) for d in range(DIM)]
        for y in range(0, SIDE, PATCH)
        for x in range(0, SIDE, PATCH)
    ]
    x = np.concatenate([state["cls_token"][0], np.array(patches)]) + state["pos_embed"][0]
    for i in range(DEPTH):
        weights = {name.removeprefix(f"blocks.{i}."): value.astype(np.float64) for name, value in state.items()}
        qkv = _norm(x) @ weights["attn.qkv.weight"].T + weights["attn.qkv.bias"]
        queries, keys, values = qkv[:, :DIM], qkv[:, DIM : 2 * DIM], qkv[:, 2 * DIM :]
        attention = [_softmax(queries[:, h] @ keys[:, h].T * (DIM / HEADS) ** -0.5) for h in _heads()]
        if i == DEPTH - 1:
            return keys[1:], np.array([a[0, 1:] for a in attention])
        mixed = np.concatenate([a @ values[:, h] for a, h in zip(attention, _heads(), strict=True)], axis=1)
        x = x + mixed @ weights["attn.proj.weight"].T
        hidden = _norm(x) @ weights["mlp.fc1.weight"].T
        x = x + (hidden * (1 + np.vectorize(math.erf)(hidden / 2**0.5)) / 2) @ weights["mlp.fc2.weight"].T
    raise AssertionError("the last block returns")


def _heads() -> list[slice]:
    size = DIM // HEADS
    return [slice(h * size, (h + 1) * size) for h in range(HEADS)]


def _norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def centre_keys(state: State, images: list[np.ndarray]) -> State:
    """The same weights, with a key bias that centres the last block's keys: similarities take both signs."""
    mean = np.concatenate([naive_forward(state, image)[0] for image in images]).mean(axis=0)
    bias = state[f"blocks.{DEPTH - 1}.attn.qkv.bias"].copy()
    bias[DIM : 2 * DIM] = -mean
    return {**state, f"blocks.{DEPTH - 1}.attn.qkv.bias": bias}


def draw_image(index: int) -> np.ndarray:
    """Picture 0, 1 or 2: stripes with a disc, a rectangle or both, in whole numbers, hence exact everywhere."""
    height, width = [(96, 96), (90, 93), (96, 89)][index]
    y, x = np.mgrid[:height, :width]
    image = np.stack([(x * (3 + index) + y) % 97, (y * (4 + index) + 2 * x) % 61, (x + y * 2) % 79], axis=2) + 60
    if index != 1:
        disc = (x - 60) ** 2 + (y - 40 - 10 * index) ** 2 < 22**2
        image[disc] = image[disc] // 3 + [150, 20, 10]
    if index != 0:
        image[20:55, 10:45] = image[20:55, 10:45] // 4 + [0, 40, 180]
    return image.astype(np.uint8)
