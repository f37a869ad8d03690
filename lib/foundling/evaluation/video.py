"""Video object segmentation as DAVIS 2017 scores it: regions (J), contours (F), and the mean of the two.

Each object of each video has a J and an F in every frame but the first, which was given, and the last. Its mean over
frames counts once; the figure of a dataset is the mean over all objects of all videos.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.stats import bootstrap

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval
from foundling.types import VOID

TOLERANCE = 0.008  # of the diagonal: how far a contour may be off
RECALLED = 0.5  # a frame is recalled above it
QUARTERS = 4


@dataclass(frozen=True)
class Measure:
    """J or F in percent: the mean over frames; recall, the share of frames above 50; decay, first less last quarter."""

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class ObjectScore:
    """What one object of one video got; ``frames_j`` and ``frames_f`` (0..1) are those of its frames that count."""

    video: str
    number: int
    j: Measure
    f: Measure
    frames_j: Float[np.ndarray, " frame"]
    frames_f: Float[np.ndarray, " frame"]

    @property
    def jf(self) -> float:
        """The mean of J and F, in percent."""
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True)
class VideoScores:
    """A dataset's figures in percent: J&F with its interval over videos, J and F, and the objects they are means of.

    ``jf``'s ends are ``None`` for a single video.
    """

    jf: Interval
    j: Measure
    f: Measure
    objects: tuple[ObjectScore, ...]


def score_videos(
    videos: Iterable[tuple[str, UInt8[np.ndarray, "_ _ _"], UInt8[np.ndarray, "_ _ _"]]],  # each of its own shape
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> VideoScores:
    """Score ``videos``: name, masks found and masks annotated, one video at a time (DAVIS 2017, semi-supervised).

    Masks are object numbers [frame, height, width], as in :func:`score_video`. The interval of J&F comes from
    resampling whole videos, whose objects share their difficulty.

    Raises :class:`ParameterError` if there is no video, and as :func:`score_video`.
    """
    objects = [score for name, found, truth in videos for score in score_video(name, found, truth)]
    if not objects:
        raise ParameterError("no video to score: track at least one")
    interval = _over_videos(objects, [score.jf for score in objects], confidence, resamples, seed)
    return VideoScores(
        interval, _mean_of([score.j for score in objects]), _mean_of([score.f for score in objects]), tuple(objects)
    )


def score_video(
    name: str, found: UInt8[np.ndarray, "frame h w"], truth: UInt8[np.ndarray, "frame_t h_t w_t"]
) -> list[ObjectScore]:
    """The scores of the objects of one video, which are numbered from 1 to the highest number in its first mask.

    Pixels that are 255 in ``truth`` count neither way. An object that ``found`` does not have is an empty mask.

    Raises :class:`ParameterError`, naming the video, where sizes or numbers of frames differ, there are fewer than
    three frames, the first mask has no object, or ``found`` has a number beyond the objects.
    """
    if found.shape != truth.shape:
        raise ParameterError(
            f"video {name!r}: masks found are {found.shape} (frames, height, width), annotated {truth.shape}: "
            "they must be of one size, one for each frame"
        )
    if len(truth) < 3:
        raise ParameterError(f"video {name!r}: {len(truth)} frames, but the first and the last are not scored: give 3")
    count = int(np.where(truth[0] == VOID, 0, truth[0]).max())
    if not count:
        raise ParameterError(f"video {name!r}: its first mask has no object, so there is nothing to follow")
    found, truth = found[1:-1], truth[1:-1]
    if found.max() > count:
        raise ParameterError(f"video {name!r}: masks found have object {found.max()}, but there are only {count}")
    return [_score(name, number, found, truth) for number in range(1, count + 1)]


def _score(name: str, number: int, found: np.ndarray, truth: np.ndarray) -> ObjectScore:
    known = truth != VOID
    pairs = list(zip((found == number) & known, truth == number, strict=True))
    regions = np.array([region_similarity(*pair) for pair in pairs])
    contours = np.array([contour_accuracy(*pair) for pair in pairs])
    return ObjectScore(name, number, _measure(regions), _measure(contours), regions, contours)


def region_similarity(found: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """J: the intersection over union of two masks; 1 where both are empty."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def contour_accuracy(
    found: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], tolerance: float = TOLERANCE
) -> float:
    """F: the harmonic mean of precision and recall of the contour's pixels.

    A pixel of one contour is right if the other has one no farther than ``tolerance`` times the diagonal, rounded up to
    whole pixels. 1 where neither mask has a contour, 0 where only one has.
    """
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    mine, theirs = contour(found), contour(truth)
    if not mine.any() or not theirs.any():
        return float(mine.any() == theirs.any())
    precision, recall = _within(mine, theirs, radius), _within(theirs, mine, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _within(contour: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"], radius: int) -> float:
    """The share of the pixels of ``contour`` that are no farther than ``radius`` from one of ``other``."""
    distance = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # distances are roots of whole numbers, in single precision: the next root beyond r is at least 1/(3 r) away
    return float((distance[contour] <= radius + 1e-3).mean())


def contour(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels that differ from their neighbour on the right, below, or on the right below.

    This is DAVIS's contour, one pixel wide; at the image's last row and column the neighbours that exist count.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here, right, below, across = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (here != right) | (here != below) | (here != across)


def _measure(values: Float[np.ndarray, " frame"]) -> Measure:
    """DAVIS's statistics of one object's frames; quarters share the frames at which they meet."""
    ends = np.round(np.linspace(1, len(values), QUARTERS + 1) + 1e-10).astype(int) - 1
    decay = values[: ends[1] + 1].mean() - values[ends[-2] :].mean()
    return Measure(*(100 * float(value) for value in (values.mean(), (values > RECALLED).mean(), decay)))


def _mean_of(measures: Sequence[Measure]) -> Measure:
    return Measure(
        mean=float(np.mean([m.mean for m in measures])),
        recall=float(np.mean([m.recall for m in measures])),
        decay=float(np.mean([m.decay for m in measures])),
    )


def jf_difference(
    scores: VideoScores,
    others: VideoScores,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """By how many points the J&F of ``scores`` is above that of ``others`` on the same objects, with its interval.

    Videos are resampled together, so that what makes one easy or hard for both cancels; an interval that contains 0
    does not tell the two apart. Raises :class:`ParameterError` where the objects differ.
    """
    names, theirs = ([(score.video, score.number) for score in s.objects] for s in (scores, others))
    if names != theirs:
        raise ParameterError(
            f"paired trackers need the same objects in one order: {len(names)} and {len(theirs)} of them differ; leave "
            "out the videos that failed with either"
        )
    gains = [a.jf - b.jf for a, b in zip(scores.objects, others.objects, strict=True)]
    return _over_videos(scores.objects, gains, confidence, resamples, seed)


def _over_videos(
    objects: Sequence[ObjectScore], values: Sequence[float], confidence: float, resamples: int, seed: int
) -> Interval:
    """The mean of one value an object; its interval from drawing videos, with all of their objects."""
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")
    mean = float(np.mean(values))
    _, video = np.unique([score.video for score in objects], return_inverse=True)
    totals, counts = np.bincount(video, weights=values), np.bincount(video).astype(np.float64)
    if len(totals) == 1:
        return Interval(mean, None, None)
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    drawn = bootstrap(
        (totals, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(mean, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high))
