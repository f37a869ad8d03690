"""`foundling discover --categories K`: photos sorted by what is in them, in groups that have numbers for names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from foundling.errors import ParameterError

if TYPE_CHECKING:
    from foundling.backbones import Backbone
    from foundling.discovery.stream import Found
    from foundling.types import Failure, Sample

FILE = "categories.json"
UNSORTED = "not sorted"
FEWEST_NEIGHBOURS = 3


@dataclass(frozen=True)
class Sorting:
    """The group of every photo: ``labels`` [photo] from 0 (the largest group), -1 where no object was found.

    ``order`` holds the positions of the photos as they are shown: by group, in each the most typical first.
    ``described`` says how objects were described and grouped.
    """

    labels: Int[np.ndarray, " photo"]
    order: tuple[int, ...]
    count: int
    described: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The names of the groups, and at the end that of the photos without one, if there are such."""
        unsorted = [UNSORTED] if (self.labels < 0).any() else []
        return [f"category {group + 1}" for group in range(self.count)] + unsorted

    def number(self, photo: int) -> int:
        """The number of a photo's group, from 1; one more than there are groups where it has none."""
        label = int(self.labels[photo])
        return (label if label >= 0 else self.count) + 1

    def name(self, photo: int) -> str:
        return self.names[self.number(photo) - 1]


def check_categories(categories: int | None) -> None:
    """Raise :class:`ParameterError` for a number of categories that sorts nothing."""
    if categories is not None and categories < 2:
        raise ParameterError(f"--categories {categories}: give 2 or more")


def sort_photos(
    backbone: "Backbone",
    samples: Sequence["Sample"],
    found: "Found",
    label: str,
    categories: int,
    *,
    precision: str = "fp32",
    batch_size: int = 16,
) -> Sorting:
    """Group the photos by the best object that the method ``label`` found in each (spectral clustering, COMUS).

    The graph joins each object with about as many as a category would have on average, 30 at most (COMUS).
    Raises :class:`ParameterError` where there are fewer objects than categories, or fewer than 3.
    """
    from foundling.categories import cluster_objects, describe_objects, objects_of_found
    from foundling.categories.cluster import NEIGHBOURS
    from foundling.categories.fitting import LEAST, description_of

    objects = objects_of_found(found, label, masks=True)
    settings = description_of(backbone.name)
    failures: list[Failure] = []
    x = describe_objects(
        backbone, samples, objects, **settings, precision=precision, batch_size=batch_size, failures=failures
    )
    count = int(np.isfinite(x).all(axis=1).sum())
    if count < max(LEAST, categories):
        raise ParameterError(
            f"--categories {categories}: {label} found {count} object{'s' * (count != 1)} in {len(samples)} photos, "
            f"and sorting takes {max(LEAST, categories)}: photos stay unsorted; ask for fewer categories, or give more "
            "photos"
        )
    neighbours = min(max(FEWEST_NEIGHBOURS, min(NEIGHBOURS, count // categories)), count - 1)
    groups = cluster_objects(x, categories, "spectral", 0, neighbours)
    labels, distances = np.full(len(samples), -1, dtype=np.int64), np.full(len(samples), np.inf)
    labels[objects.images], distances[objects.images] = groups.labels, groups.distances
    last = np.where(labels < 0, categories, labels)
    order = np.lexsort((np.arange(len(samples)), np.nan_to_num(distances, nan=np.inf), last))
    told = {"method": label, "neighbours": neighbours, "flags": list(groups.flags), **settings}
    told |= {"not_described": [failure.error for failure in failures]}
    return Sorting(labels, tuple(order.tolist()), categories, told)


def content(sorting: Sorting, samples: Sequence["Sample"], found: "Found") -> dict[str, Any]:
    """What ``categories.json`` says: the photos of each group, the most typical first, and those without one."""
    read = {record["index"] for record in found.records}
    photos: dict[int, list[str]] = {number: [] for number in range(1, sorting.count + 2)}
    for i in sorting.order:
        if i in read:
            photos[sorting.number(i)].append(samples[i].name)
    *groups, rest = photos.items()
    named = [{"id": number, "name": sorting.names[number - 1], "photos": inside} for number, inside in groups]
    return {"categories": named, "unsorted": rest[1], "how": sorting.described}


def told(sorting: Sorting) -> str:
    """What the command prints about the groups: a line, and one for each object that could not be described."""
    sizes = np.bincount(sorting.labels[sorting.labels >= 0], minlength=sorting.count)
    lines = [f"{sorting.count} categories of {', '.join(map(str, sizes))} photos"]
    return "\n".join(lines + [f"  not sorted: {reason}" for reason in sorting.described["not_described"]])
