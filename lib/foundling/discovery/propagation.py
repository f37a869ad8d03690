"""Labels carried from frame to frame to the most similar places: video segmentation without training.

The protocol of DINO's evaluation on DAVIS 2017, which Odin follows (Sec. 4.3, Table 5): a frame's labels are means over
the few places that resemble it most, in the first frame and in the frames just before, and nearby only.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from foundling.errors import ParameterError

TILE = 16  # cells; a square of this side is answered at once, which bounds the memory
SIDES = 64  # pixels; DINO's code cuts the longer side to a multiple of it

Labels = Float[Tensor, "label rows columns"]  # how much of each label a cell holds; 0 is the background


@dataclass(frozen=True)
class Rule:
    """How labels travel; the defaults are DINO's.

    ``frames``: how many frames just before serve as context besides the first. ``radius``: how far apart, in rows and
    in columns of cells, places may lie. ``top``: how many places in all of the context count. ``temperature``: a place
    of cosine c weighs exp(c / temperature).
    """

    frames: int = 7
    radius: int = 12
    top: int = 5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("frames", 0), ("radius", 0), ("top", 1)):
            if getattr(self, name) < least:
                raise ParameterError(f"{name}={getattr(self, name)}: must be at least {least}")
        if not self.temperature > 0:
            raise ParameterError(f"temperature={self.temperature}: must be above 0")


DINO_RULE = Rule()


def propagate(
    features: Iterable[Float[Tensor, "cell channel"]], first: Labels, rule: Rule = DINO_RULE
) -> Iterator[Labels]:
    """Carry the labels of the first frame through the others.

    ``features`` come frame by frame, the first one's first, over the grid of ``first``, row by row; ``first`` holds 1
    where a cell of the first frame has a label. The context of a frame is the first frame and the ``rule.frames``
    before it with what was found there, as it was found: shares, not decisions.

    Yields the labels of the second frame, the third, …; each cell's sum to 1. Holds no more than the context.
    Raises :class:`ParameterError` where a frame has another number of cells than the grid.
    """
    rows, columns = first.shape[1:]
    start: Tensor | None = None
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=rule.frames)
    for number, frame in enumerate(features):
        if len(frame) != rows * columns:
            raise ParameterError(
                f"frame {number} has {len(frame)} cells, but the first mask lies on {rows}×{columns}: describe all "
                "frames at one size"
            )
        unit = F.normalize(frame.float(), dim=1).view(rows, columns, -1)
        if start is None:
            start, first = unit, first.to(unit)
            continue
        context = torch.stack([start, *(seen for seen, _ in recent)])
        labels = torch.stack([first, *(found for _, found in recent)])
        found = carry(unit, context, labels, rule)
        recent.append((unit, found))
        yield found


def carry(
    query: Float[Tensor, "rows columns channel"],
    context: Float[Tensor, "frame rows columns channel"],
    labels: Float[Tensor, "frame label rows columns"],
    rule: Rule = DINO_RULE,
) -> Labels:
    """The labels of one frame from those of its context; features are unit vectors.

    Tile by tile of the frame, against the part of the context that lies within ``rule.radius`` of the tile: the matrix
    of all pairs of cells never exists. Places as similar as the last one that counts, count as well.
    """
    rows, columns, _ = query.shape
    out = labels.new_empty(labels.shape[1], rows, columns)
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            tile = (slice(top, min(top + TILE, rows)), slice(left, min(left + TILE, columns)))
            around = tuple(slice(max(0, s.start - rule.radius), s.stop + rule.radius) for s in tile)
            near = _near(tile[0], around[0], rows, rule.radius, query.device)[:, None, :, None]
            near = near & _near(tile[1], around[1], columns, rule.radius, query.device)[None, :, None, :]
            found = _answer(
                query[tile], context[:, *around], labels[:, :, *around], near.flatten(0, 1).flatten(1), rule
            )
            out[:, *tile] = found.T.reshape(-1, *query[tile].shape[:2])
    return out


def _near(mine: slice, others: slice, length: int, radius: int, device: torch.device) -> Tensor:
    """Which of the ``others`` along one side lie within ``radius`` of ``mine``: [mine, others]."""
    place = torch.arange(length, device=device)
    return (place[mine, None] - place[None, others]).abs() <= radius


def _answer(
    query: Float[Tensor, "r c channel"],
    context: Float[Tensor, "frame R C channel"],
    labels: Float[Tensor, "frame label R C"],
    near: Tensor,
    rule: Rule,
) -> Float[Tensor, "query label"]:
    """The labels of one tile; ``near`` says which cells [query, R · C] may be looked at, the same in every frame."""
    cosine = query.flatten(0, 1) @ context.flatten(0, 2).T  # [query, frame · R · C]
    cosine.view(len(near), len(context), -1).masked_fill_(~near[:, None], -torch.inf)
    last = cosine.topk(min(rule.top, cosine.shape[1])).values[:, -1:]
    # the difference to the best, so that no temperature overflows; the sum takes it out again
    weight = ((cosine - cosine.amax(1, keepdim=True)) / rule.temperature).exp_()
    weight.masked_fill_(cosine < last, 0)
    weight /= weight.sum(1, keepdim=True)
    return weight @ labels.movedim(1, -1).flatten(0, 2)


def frame_size(size: tuple[int, int], cell: int, short_side: int | None = 480) -> tuple[int, int]:
    """Height and width at which frames of ``size`` are described by a network whose cells have ``cell`` pixels.

    DINO's: the shorter side becomes ``short_side`` pixels, the longer follows and is cut to a multiple of 64 (854×480
    becomes 832×480). ``None`` keeps the frames' own size. Either is then cut to whole cells.

    Raises :class:`ParameterError` if no cell is left.
    """
    height, width = size
    if short_side is not None:
        longer = short_side * max(size) / min(size) // SIDES * SIDES
        height, width = (int(longer), short_side) if height > width else (short_side, int(longer))
    if min(height, width) < cell:
        raise ParameterError(
            f"frames of {size[1]}×{size[0]} pixels become {width}×{height} with short_side={short_side}, which is less "
            f"than one cell of {cell} pixels: choose a larger short_side"
        )
    return height // cell * cell, width // cell * cell


def first_labels(mask: UInt8[np.ndarray, "h w"], grid: tuple[int, int], objects: int) -> Labels:
    """The index mask on the grid of cells (its nearest pixels), one layer a label; numbers beyond ``objects`` are 0."""
    small = Image.fromarray(mask).resize(grid[::-1], Image.Resampling.NEAREST)
    number = torch.from_numpy(np.array(small)).long()
    number[number > objects] = 0
    return F.one_hot(number, objects + 1).permute(2, 0, 1).float()


def decide(labels: Labels, cell: int, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The index mask of a frame of ``size`` (height, width) from its labels.

    Labels are enlarged (bilinear) to the pixels that were described; each label is stretched to 0..1, so that a small
    object is not outvoted (one that is the same everywhere is left alone); the largest wins; nearest pixels.
    """
    large = F.interpolate(labels[None], scale_factor=float(cell), mode="bilinear", align_corners=False)[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    stretched = torch.where(high > low, (large - low) / (high - low), large)
    winner = stretched.argmax(0).to("cpu", torch.uint8).numpy()
    return np.array(Image.fromarray(winner).resize(size[::-1], Image.Resampling.NEAREST))
