"""Images → patch features: decoding, batches of one patch grid, the network, all overlapped and in bounded memory."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foundling.backbones.apply import normalise
from foundling.backbones.cnn import cnn_facets
from foundling.backbones.load import Backbone
from foundling.backbones.prepare import Limits, Prepared, Source, read_ahead
from foundling.backbones.vit import NORMS, Transformer, transformer_facets
from foundling.errors import ImageError, ParameterError
from foundling.types import FACETS, Failure, PatchFeatures, Sample

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PATCHES_A_BATCH = 65536  # a batch is cut where it would hold more: eight images of 8,192 patches, sixteen of 4,096
PENDING_BATCHES = 4  # images that wait for others of their grid, in batches; beyond it the oldest go out as they are

Grid = tuple[int, int]


@dataclass
class _Budget:
    """How many patches fit into one batch; lowered when the device runs out of memory, and then remembered."""

    patches: int = PATCHES_A_BATCH

    def images(self, grid: Grid) -> int:
        return max(1, self.patches // (grid[0] * grid[1]))


@dataclass(frozen=True)
class _Asked:
    """What is taken from the network (see :func:`extract`); ``block`` counts from 0."""

    facets: tuple[str, ...]
    block: int
    bias: bool
    norm: str
    precision: str


def extract(
    backbone: Backbone,
    images: Iterable[Source],
    facets: tuple[str, ...] | list[str] = ("keys",),
    block: int = -1,
    bias: bool = True,
    norm: str = "last",
    batch_size: int = 16,
    precision: str = "fp32",
    max_side: int | None = None,
    max_patches: int = 16384,
    failures: list[Failure] | None = None,
    workers: int = 2,
) -> Iterator[PatchFeatures]:
    """Patch features of ``images`` (paths, Pillow images or samples), in batches whose images share one patch grid.

    Images are taken at their own size, padded on the right and bottom with zeros after normalisation (that is, with the
    mean colour) to a multiple of the patch size; padded patches are ordinary patches. ``facets`` are among
    ``backbone.facets``, and ``"images"`` keeps the pictures. ``block`` counts from 0, or from the end if negative; what
    each facet of a block is stands in :func:`foundling.backbones.vit.transformer_facets`, and so do ``bias`` (False:
    queries, keys and values without it) and ``norm`` ("last", "all", "none": which blocks' tokens pass the network's
    final norm); a CNN has only the defaults. With ``max_side`` (pixels) larger images are shrunk first. An image of
    more than ``max_patches`` patches is refused. ``batch_size`` is the most images in a batch. ``precision`` ``"bf16"``
    or ``"fp16"`` runs the network under autocast (its weights stay as they are, normalisations and softmax stay in
    float32); features are float32 in any case. ``workers`` threads decode ahead.

    Yields batches in an order that depends on the input alone; ``indices`` are positions in ``images``. A batch that
    does not fit into memory is halved, and the size is remembered. Memory does not grow with the number of images.

    Raises :class:`ParameterError` at once for an impossible parameter. An unusable image raises :class:`ImageError`,
    or, with a list in ``failures``, is appended to it while the others go on.
    """
    _check_numbers(batch_size=batch_size, max_side=max_side, max_patches=max_patches, workers=workers)
    asked = _checked(backbone, facets, block, bias, norm, precision)
    limits = Limits(backbone.patch_size, max_side, max_patches, "images" in facets)
    return _stream(backbone, images, asked, batch_size, limits, failures, workers)


def _stream(
    backbone: Backbone,
    images: Iterable[Source],
    asked: _Asked,
    batch_size: int,
    limits: Limits,
    failures: list[Failure] | None,
    workers: int,
) -> Iterator[PatchFeatures]:
    budget = _Budget()
    prepared = read_ahead(images, limits, workers, 2 * batch_size, failures)
    for grid, group in _grouped(prepared, backbone.patch_size, batch_size):
        while group:
            count = min(len(group), budget.images(grid))
            try:
                features = _features(backbone, grid, group[:count], asked)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                features = None
            if features is not None:
                group = group[count:]
                yield features
            elif count > 1:
                budget.patches = count // 2 * grid[0] * grid[1]
            else:
                _refuse(group.pop(0), grid, failures)
            del features


def _grouped(prepared: Iterable[Prepared], patch_size: int, batch_size: int) -> Iterator[tuple[Grid, list[Prepared]]]:
    """Batches of one grid: full ones as soon as they are full, the rest in the order of their first images."""
    pending: dict[Grid, list[Prepared]] = {}
    for item in prepared:
        grid = item.grid(patch_size)
        pending.setdefault(grid, []).append(item)
        if len(pending[grid]) == batch_size:
            yield grid, pending.pop(grid)
        elif sum(map(len, pending.values())) >= PENDING_BATCHES * batch_size:
            oldest = next(iter(pending))  # dictionaries keep the order in which grids came
            yield oldest, pending.pop(oldest)
    yield from pending.items()


def _features(backbone: Backbone, grid: Grid, batch: list[Prepared], asked: _Asked) -> PatchFeatures:
    tensors = _forward(backbone, _padded(batch, grid, backbone), asked)
    return PatchFeatures(
        grid=grid,
        patch_size=backbone.patch_size,
        image_sizes=torch.tensor([item.pixels.shape[:2] for item in batch]),
        original_sizes=torch.tensor([item.original for item in batch]),
        names=tuple(item.name for item in batch),
        indices=tuple(item.index for item in batch),
        images=tuple(item.image for item in batch if item.image is not None) if "images" in asked.facets else None,
        **tensors,
    )


def _padded(batch: list[Prepared], grid: Grid, backbone: Backbone) -> Float[Tensor, "image 3 height width"]:
    """The batch on the backbone's device, normalised, then padded with zeros on the right and at the bottom."""
    height, width = (n * backbone.patch_size for n in grid)
    canvas = torch.zeros(len(batch), height, width, 3, dtype=torch.uint8)
    for row, item in zip(canvas, batch, strict=True):
        row[: item.pixels.shape[0], : item.pixels.shape[1]] = item.pixels
    pixels = canvas.to(backbone.device).permute(0, 3, 1, 2).float().div_(255)
    pixels = normalise(pixels, backbone.mean, backbone.std).contiguous()
    for row, item in zip(pixels, batch, strict=True):
        row[:, item.pixels.shape[0] :] = 0
        row[:, :, item.pixels.shape[1] :] = 0
    return pixels


def _forward(backbone: Backbone, pixels: Float[Tensor, "image 3 height width"], asked: _Asked) -> dict[str, Tensor]:
    """The facets as ordinary contiguous float32 tensors: copies, so that no view keeps a whole product alive."""
    with torch.inference_mode(), arithmetic(backbone.device, asked.precision):
        if backbone.family == "cnn":
            out = cnn_facets(backbone.network, pixels, asked.facets)
        else:
            assert isinstance(backbone.network, Transformer)
            out = transformer_facets(backbone.network, pixels, asked.facets, asked.block, asked.bias, asked.norm)
        out = {name: value.float() for name, value in out.items()}
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in out.items()}


@contextlib.contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Autocast where asked for; and no TF32 convolutions, which PyTorch allows by default and DINO's code predates."""
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        if precision != "fp32":
            stack.enter_context(torch.autocast(device.type, dtype=PRECISIONS[precision]))
        yield


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error is a device's or the CPU allocator's way to say that memory is short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "DefaultCPUAllocator" in text or "can't allocate memory" in text or "not enough memory" in text


def _refuse(item: Prepared, grid: Grid, failures: list[Failure] | None) -> None:
    height, width = item.pixels.shape[:2]
    error = ImageError(
        f"{item.name}: out of memory even for this image alone ({width}×{height} pixels, {grid[0]}×{grid[1]} patches): "
        "shrink it with max_side (pixels), or use a device with more memory"
    )
    if failures is None:
        raise error
    failures.append(Failure(item.name, item.index, str(error)))


def _checked(
    backbone: Backbone, facets: tuple[str, ...] | list[str], block: int, bias: bool, norm: str, precision: str
) -> _Asked:
    """What is asked of the network, every part in its legal set; raises :class:`ParameterError` otherwise."""
    if isinstance(facets, str) or not facets:
        raise ParameterError(f"facets={facets!r}: give a tuple of names, such as ('keys',)")
    for facet in facets:
        if facet not in FACETS:
            raise ParameterError(f"unknown facet {facet!r}: choose among {', '.join(FACETS)}")
        if facet not in (*backbone.facets, "images"):
            why = "a CNN has no such facet" if backbone.family == "cnn" else "its blocks see no CLS token"
            legal = ", ".join((*backbone.facets, "images"))
            raise ParameterError(f"{backbone.name} has no facet {facet!r} ({why}): choose among {legal}")
    if not -backbone.blocks <= block < backbone.blocks:
        raise ParameterError(
            f"block={block}: {backbone.name} has blocks 0 to {backbone.blocks - 1} (or {-backbone.blocks} to -1)"
        )
    if norm not in NORMS:
        raise ParameterError(f"unknown norm {norm!r}: choose one of {', '.join(NORMS)}")
    if backbone.family == "cnn" and (norm != "last" or not bias):
        raise ParameterError(
            f"bias={bias}, norm={norm!r}: {backbone.name} is a CNN, whose features have neither a bias of keys nor a "
            "final norm: leave bias=True and norm='last'"
        )
    if precision not in PRECISIONS:
        raise ParameterError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    return _Asked(tuple(facets), block % backbone.blocks, bias, norm, precision)


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ParameterError(f"{name}={value}: must be at least 1")


def first_described(
    backbone: Backbone, samples: Iterable[Sample], count: int, failures: list[Failure], **options: Any
) -> list[tuple[Sample, PatchFeatures]]:
    """The first ``count`` samples that can be used, each with its features as a batch of one; fewer if there are fewer.

    ``options`` are those of :func:`extract`; what is passed over on the way is added to ``failures``, with its position
    in ``samples``. Raises :class:`ImageError` if there is not one.
    """
    described: list[tuple[Sample, PatchFeatures]] = []
    for index, sample in enumerate(samples):
        if len(described) == count:
            break
        failed: list[Failure] = []
        described += [(sample, one) for one in extract(backbone, [sample], failures=failed, **options)]
        failures += [Failure(failure.name, index, failure.error) for failure in failed]
    if not described:
        last = f"; the last one: {failures[-1].error}" if failures else ""
        raise ImageError(f"not one image can be used{last}")
    return described
