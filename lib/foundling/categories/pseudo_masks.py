"""Objects and their clusters → semantic index PNGs in VOC's palette: what a segmenter is trained on (COMUS, Alg. 1).

A pixel is 0 where there is no object, cluster + 1 inside an object, and 255 (to be ignored) inside one whose cluster is
in doubt.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int, UInt8

from foundling.categories.crops import RLE, Objects, check_images
from foundling.datasets.index_masks import write_labels
from foundling.datasets.semantic import read_semantic, size_of
from foundling.discovery.export import decode_mask
from foundling.errors import ImageError, ParameterError
from foundling.files import write_bytes, writing
from foundling.saliency.masks import box_mask
from foundling.types import VOID, Failure, Sample

MADE_OF = "made_of.json"  # in the folder: what its label maps were made of, so that a later run knows them again
MOST = VOID - 1  # clusters: 0 is background, 255 void


@dataclass(frozen=True)
class PseudoMasks:
    """One label map an image: its file, or ``None`` for an image that was left out or failed.

    ``clusters`` is the number of clusters: maps hold 0 to ``clusters``, and 255. ``left_out`` names the images whose
    objects were all in doubt, if these were to be left out.
    """

    files: tuple[Path | None, ...]
    clusters: int
    left_out: tuple[str, ...]
    failures: tuple[Failure, ...]

    def read(self, i: int, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "height width"] | None:
        """The label map of image ``i``; raises as :func:`foundling.datasets.semantic.read_semantic`."""
        file = self.files[i]
        return None if file is None else read_semantic(file, self.clusters + 1, size)

    def check(self, samples: Sequence[Sample]) -> None:
        """Raises :class:`ParameterError` if there are not as many label maps as ``samples``."""
        if len(self.files) != len(samples):
            raise ParameterError(
                f"{len(self.files)} label maps for {len(samples)} images: pass the samples that they were made of"
            )

    def contents(self) -> bytes:
        """What tells these label maps from others: the SHA-256 of each file, ``-`` where there is none."""
        return b"".join(b"-" if file is None else hashlib.sha256(file.read_bytes()).digest() for file in self.files)


def label_map(
    shapes: Sequence[RLE | Sequence[float]], labels: Int[np.ndarray, " object"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    """The label map of one image of ``size`` (height, width): cluster + 1 inside its objects, 255 where that is -1.

    ``shapes`` are masks (COCO run lengths) or, where there is none, boxes. Where objects overlap, one with a cluster
    goes before one without, and then the first. Raises :class:`ImageError` for a mask of another size.
    """
    labels_map = np.zeros(size, dtype=np.uint8)
    order = sorted(range(len(shapes)), key=lambda i: (labels[i] < 0, i))
    for i in reversed(order):
        labels_map[_inside(shapes[i], size)] = VOID if labels[i] < 0 else labels[i] + 1
    return labels_map


def map_of_rows(
    objects: Objects, labels: Int[np.ndarray, " object"], rows: Sequence[int], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    """The :func:`label_map` of one image, whose objects are the ``rows`` of ``objects``; ``labels`` are of them all."""
    shapes = [objects.masks[row] or objects.boxes[row].tolist() for row in rows]
    return label_map(shapes, labels[list(rows)], size)


def _inside(shape: RLE | Sequence[float], size: tuple[int, int]) -> np.ndarray:
    if not isinstance(shape, Mapping):
        return box_mask(list(shape), list(size))
    if tuple(shape["size"]) != size:
        height, width = shape["size"]
        raise ImageError(
            f"its mask is {width}×{height} pixels and its image {size[1]}×{size[0]}: make masks at the original size"
        )
    return decode_mask(shape)


def write_pseudo_masks(
    folder: Path,
    samples: Sequence[Sample],
    objects: Objects,
    labels: Int[np.ndarray, " object"],
    clusters: int | None = None,
    leave_out: bool = False,
) -> PseudoMasks:
    """Write the label map of every image as an index PNG in ``folder``, named as the image.

    ``objects`` are those found in ``samples``, of which an image may have several or none (its map is then all
    background); ``labels`` their clusters from 0, or -1 for one in doubt, whose pixels become 255. ``clusters`` is the
    number of clusters (default: those that occur). With ``leave_out``, images that have objects, all in doubt, get no
    map: COMUS takes them out of training.

    Files appear whole or not at all; those of an earlier run on the same objects and labels are kept, and those of one
    on others removed. Images that cannot be read are failures. Raises :class:`ParameterError` where ``labels`` do not
    fit ``objects`` or ``clusters``, ``objects`` are of other images, or a file that was not made here is in the way;
    FoundlingError if the folder cannot be written.
    """
    check_images(samples, objects)
    present = int(labels.max(initial=-1)) + 1
    clusters = present if clusters is None else clusters
    if len(labels) != len(objects):
        raise ParameterError(f"{len(labels)} labels for {len(objects)} objects: give each its cluster, or -1")
    if labels.min(initial=0) < -1 or present > clusters or clusters > MOST:
        raise ParameterError(
            f"labels of {labels.min(initial=0)} to {present - 1} with clusters = {clusters}: legal are -1 (in doubt) "
            f"to clusters - 1, and at most {MOST} clusters fit into a label map of 8 bits"
        )
    of_image: list[list[int]] = [[] for _ in samples]
    for row, image in enumerate(objects.images.tolist()):
        of_image[image].append(row)
    files = [folder / name for name in file_names([sample.name for sample in samples])]
    kept = kept_maps(folder, files, _digest(objects, labels, leave_out))
    written, left_out, failures = list[Path | None](), list[str](), list[Failure]()
    for index, (sample, rows, file) in enumerate(zip(samples, of_image, files, strict=True)):
        if leave_out and rows and (labels[rows] < 0).all():
            left_out.append(sample.name)
            written.append(None)
            continue
        try:
            if file not in kept:
                found = map_of_rows(objects, labels, rows, size_of(sample))
                with writing(file) as part:
                    write_labels(part, found)
            written.append(file)
        except ImageError as error:
            failures.append(Failure(sample.name, index, str(error)))
            written.append(None)
    return PseudoMasks(tuple(written), clusters, tuple(left_out), tuple(failures))


def file_names(names: Sequence[str]) -> list[str]:
    """The file of each image's label map: its name with the ending ``.png``; after its own where two would be equal."""
    short = [PurePosixPath(name).with_suffix(".png").as_posix() for name in names]
    times = Counter(short)
    return [brief if times[brief] == 1 else f"{name}.png" for name, brief in zip(names, short, strict=True)]


def _digest(objects: Objects, labels: Int[np.ndarray, " object"], leave_out: bool) -> str:
    told = hashlib.sha256(labels.astype(np.int64).tobytes() + objects.images.tobytes() + objects.boxes.tobytes())
    for name, mask in zip(objects.names, objects.masks, strict=True):
        told.update(f"{name}\0{mask}\0".encode())
    return f"{told.hexdigest()}{' left out' if leave_out else ''}"


def kept_maps(folder: Path, files: Sequence[Path], digest: str) -> set[Path]:
    """Which of ``files`` an earlier run made of the same; what one made of something else is removed.

    ``digest`` says what the label maps of ``folder`` are made of, and is noted there. Raises :class:`ParameterError`
    if a file that was not made here is in the way.
    """
    note = folder / MADE_OF
    first, names = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else ("", [])
    made = {folder / name for name in names if (folder / name).is_file()}
    if foreign := [file for file in files if file not in made and file.exists()]:
        raise ParameterError(
            f"{foreign[0]} is there already, and no label map that was written here: choose a folder of its own"
        )
    wanted = [file.relative_to(folder).as_posix() for file in files]
    if [first, names] == [digest, wanted]:
        return made
    for file in made:
        file.unlink()
    write_bytes(note, json.dumps([digest, wanted]).encode())
    return set()
