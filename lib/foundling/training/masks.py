"""Masks of all images of a training set, made once and kept for many epochs: in one file a machine."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor
from tqdm import tqdm

from foundling.errors import FoundlingError
from foundling.training.batches import Batch
from foundling.training.processes import gather, gather_texts, local_rank, rank, world_size

Label = Callable[[Batch, int], Integer[Tensor, "image rows columns"]]


def label_all(
    label: Label, images: Any, shape: tuple[int, int, int], masks: int, at_once: int, device: torch.device
) -> Integer[Tensor, "image row column"]:
    """Labels, in this ``shape``, of all ``images``, the work shared among the processes; to be read, not written.

    ``label`` makes those of a batch, given also the position of its first image; it is asked for ``at_once`` images at
    a time, the same ones whatever the number of processes. Labels are 0 to ``masks`` - 1.

    What it costs: images x rows x columns bytes (four times that for more than 256 masks) once a machine, in a file
    that is mapped into the memory of all its processes: 16 GB for ImageNet on grids of 112, as in the paper. The file
    lies in the folder for temporary files (TMPDIR) and is gone with the tensor. On the device: the labels of
    ``at_once`` images of every process. Over the network: the labels of every image once to every process.

    Raises FoundlingError if the file cannot be written.
    """
    count, rows, columns = shape
    dtype = torch.uint8 if masks <= 256 else torch.int32
    plan = [range(i, min(i + at_once, count)) for i in range(0, count, at_once)]
    batches = images.batches(plan[rank() :: world_size()])

    def rounds() -> Iterator[np.ndarray]:
        """The labels of as many parts of the plan as there are processes, in the order of the images."""
        for first in tqdm(range(0, len(plan), world_size()), "masks", disable=rank() > 0 or None, leave=False):
            labels = torch.zeros(at_once, rows, columns, dtype=dtype, device=device)
            if first + rank() < len(plan):
                chosen = plan[first + rank()]
                labels[: len(chosen)] = label(next(batches), chosen[0])
            yield gather(labels)[: count - first * at_once].cpu().numpy()

    return mapped(rounds(), shape, np.uint8 if masks <= 256 else np.int32)


def mapped(parts: Iterator[np.ndarray], shape: tuple[int, ...], dtype: Any) -> Tensor:
    """An array that arrives in ``parts``, the same in every process, in a file that a machine's processes share.

    Raises FoundlingError if the file cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix="foundling_") if local_rank() == 0 else nullcontext() as file:
            for part in parts:
                if file:
                    file.write(part.data)
            if file:
                file.flush()
            names = gather_texts(file.name if file else "")
            whole = np.memmap(names[rank() - local_rank()], dtype, "c", shape=shape)
            gather_texts("mapped")  # by all: the name may go, the mapping stays
    except OSError as error:
        gigabytes = int(np.prod(shape)) * np.dtype(dtype).itemsize / 1e9
        raise FoundlingError(
            f"the masks of all images ({gigabytes:.3g} GB) cannot be kept in {tempfile.gettempdir()} "
            f"({error.strerror or error}): make room there, or name another folder in TMPDIR"
        ) from error
    return torch.from_numpy(whole)
