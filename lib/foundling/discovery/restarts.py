"""K-means from several k-means++ starts, the tightest kept: batched over images and starts, without empty clusters.

What scikit-learn's ``KMeans(n_clusters=k, n_init=10, max_iter=300)`` computes, for many small problems at once (Arthur
& Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007; each centre is the best of a few candidates).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

STARTS = 10
ITERATIONS = 300
CHECK_EVERY = {"cpu": 1}  # iterations between two looks at whether a label still changes; else 4: a GPU must wait

Points = Float[Tensor, "image patch dimension"]
Labels = Int[Tensor, "image patch"]


@torch.no_grad()
def restarted_kmeans(
    points: Points, k: int, seed: int = 0, starts: int = STARTS, iterations: int = ITERATIONS
) -> tuple[Labels, Float[Tensor, "image cluster dimension"]]:
    """The cluster of each point of each image, and the means of the clusters: the run of least inertia of ``starts``.

    Runs are computed in float32. They end where no label changes any more, at the latest after ``iterations``. The
    random numbers depend on ``seed`` and ``k`` alone and are the same for each image. Every cluster has a point, even
    if fewer than ``k`` points differ: one that would be empty takes the point farthest from the mean of its own
    cluster, if that has others. Clusters are numbered in the order of their first points. ``k`` must be at most the
    number of points.
    """
    images, count, dimensions = points.shape
    points = points - points.mean(1, keepdim=True)
    repeated = points[:, None].float().expand(-1, starts, -1, -1).reshape(images * starts, count, dimensions)
    centres = _first_centres(repeated, k, torch.Generator().manual_seed(seed), starts)
    labels, least = _nearest(repeated, _lloyd(repeated, centres, iterations))
    tightest = least.sum(1).reshape(images, starts).argmin(1)  # less each image's sum of squares, over 2
    image = torch.arange(images, device=points.device)
    labels = _numbered(_filled(points, labels.reshape(images, starts, count)[image, tightest], k), k)
    return labels, _means(points, labels, k)


def _lloyd(points: Points, centres: Tensor, iterations: int) -> Tensor:
    """Lloyd's iterations from ``centres`` [run, cluster, dimension], without the runs that have ended.

    A point exactly between several centres counts for all of these.
    """
    final, running = centres.clone(), torch.arange(len(points), device=points.device)
    rows = points.transpose(1, 2).contiguous()  # [run, dimension, patch]: a layout that products are fast in
    before = None
    for i in range(1, iterations + 1):
        distance = _halved(rows, centres)
        owned = distance.eq_(distance.amin(1, keepdim=True))  # 1 at the nearest centre
        sizes = owned.sum(2, keepdim=True)
        centres = torch.where(sizes > 0, torch.bmm(owned, rows.transpose(1, 2)) / sizes.clamp(min=1), centres)
        if i % CHECK_EVERY.get(points.device.type, 4) == 0 or i == iterations:
            final[running] = centres
            moving = running >= 0 if before is None else (owned - before).abs_().amax((1, 2)) > 0
            if not moving.any():
                break
            if not moving.all():
                running, rows, centres, owned = running[moving], rows[moving], centres[moving], owned[moving]
        before = owned
    return final


def _first_centres(points: Points, k: int, generator: torch.Generator, starts: int) -> Tensor:
    """K-means++: the next centre is drawn in proportion to the squared distance from those before it.

    Of 2 + log k candidates the one that leaves the least sum is taken.
    """
    count, device = points.shape[1], points.device
    images, candidates = len(points) // starts, 2 + int(math.log(k))
    draws = torch.rand(k, starts, candidates, generator=generator, dtype=torch.float64).to(device, points.dtype)
    draws = draws[:, None].expand(-1, images, -1, -1).reshape(k, images * starts, candidates)
    square = points.square().sum(2)
    row = torch.arange(len(points), device=device)
    chosen = (draws[0, :, 0] * count).long().clamp(max=count - 1)
    centres = [points[row, chosen]]
    nearest = _squares(points, square, centres[0][:, None])[:, 0]
    for draw in draws[1:]:
        heaped = nearest.cumsum(1)
        at = torch.searchsorted(heaped, draw * heaped[:, -1:], right=True).clamp(max=count - 1)
        new = torch.gather(points, 1, at[..., None].expand(-1, -1, points.shape[2]))  # [image·start, candidate, dim]
        left = torch.minimum(nearest[:, None], _squares(points, square, new))
        best = left.sum(2).argmin(1)
        nearest = left[row, best]
        centres.append(new[row, best])
    return torch.stack(centres, 1)


def _squares(points: Points, square: Tensor, centres: Tensor) -> Tensor:
    """Squared distances [image, centre, patch]."""
    own = centres.square().sum(2)[..., None] + square[:, None]
    return torch.baddbmm(own, centres, points.transpose(1, 2), alpha=-2).clamp(min=0)


def _nearest(points: Points, centres: Tensor) -> tuple[Labels, Float[Tensor, "image patch"]]:
    """The nearest centre (the first of equals), and what :func:`_halved` gives for it."""
    least, labels = _halved(points.transpose(1, 2), centres).min(1)
    return labels, least


def _halved(
    rows: Float[Tensor, "image dimension patch"], centres: Float[Tensor, "image centre dimension"]
) -> Float[Tensor, "image centre patch"]:
    """Half the squared distance of each point to each centre, less half the point's own square."""
    half = centres.square().sum(2)[..., None] / 2
    return torch.baddbmm(half, centres, rows, alpha=-1)


def _filled(points: Points, labels: Labels, k: int) -> Labels:
    """Labels among which every one of the k clusters has a point."""
    sizes = (labels[..., None] == torch.arange(k, device=labels.device)).sum(1)
    for i in torch.nonzero((sizes == 0).any(1)).flatten().tolist():
        for empty in torch.nonzero(sizes[i] == 0).flatten().tolist():
            own = _means(points[i : i + 1], labels[i : i + 1], k)[0, labels[i]]
            far = (points[i] - own).square().sum(1)
            taken = int(torch.where(sizes[i, labels[i]] > 1, far, -1.0).argmax())
            sizes[i, labels[i, taken]] -= 1
            sizes[i, empty] += 1
            labels[i, taken] = empty
    return labels


def _numbered(labels: Labels, k: int) -> Labels:
    """The same clusters, numbered in the order of their first points."""
    first = (labels[..., None] == torch.arange(k, device=labels.device)).to(torch.uint8).argmax(1)
    return torch.gather(first.argsort(1).argsort(1), 1, labels)


def _means(points: Points, labels: Labels, k: int) -> Float[Tensor, "image cluster dimension"]:
    owned = (labels[:, None] == torch.arange(k, device=labels.device)[:, None]).to(points.dtype)
    return torch.bmm(owned, points) / owned.sum(2, keepdim=True).clamp(min=1)
