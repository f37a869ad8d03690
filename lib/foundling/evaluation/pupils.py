"""What networks of several seeds find beside what taught them, also where both may name as many masks an image."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import Figures, Interval, precision_difference
from foundling.evaluation.precision import RESAMPLES, ClassAgnostic, class_agnostic
from foundling.evaluation.repeats import by_seed, mean_of_runs
from foundling.evaluation.results import Result, box_of, mask_of
from foundling.types import Sample


@dataclass(frozen=True)
class Pupils:
    """The class-agnostic figures of a ``teacher`` and of its pupils, one run a seed, on the same images and draws.

    ``runs`` are those of all that a pupil finds, ``equal`` those of no more in each image than the teacher has there:
    its AR100 beside the teacher's is recall at equal count.
    """

    teacher: ClassAgnostic
    runs: tuple[ClassAgnostic, ...]
    equal: tuple[ClassAgnostic, ...]

    @cached_property
    def mean(self) -> Figures:
        """The mean over ``runs``, with its intervals over images."""
        return mean_of_runs(self.runs)

    @cached_property
    def mean_equal(self) -> Figures:
        """The mean over ``equal``, with its intervals over images."""
        return mean_of_runs(self.equal)

    def gain(self, equal: bool = True) -> dict[str, Interval]:
        """How many points the mean lies above the teacher, with the paired interval over images."""
        return precision_difference(self.mean_equal if equal else self.mean, self.teacher)

    def gain_by_seed(self, equal: bool = True) -> dict[str, Interval]:
        """The same with the interval over seeds (Student's t): none for a single run."""
        return by_seed(self.equal if equal else self.runs, [self.teacher])


def beside_teacher(
    teacher: Sequence[Result],
    runs: Sequence[Sequence[Result]],
    samples: Sequence[Sample],
    kind: str = "segm",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Pupils:
    """AP and AR of the results of a ``teacher`` and of each of ``runs``; see :func:`class_agnostic` for the rest.

    Raises :class:`ParameterError` without a run, and as :func:`class_agnostic`.
    """
    if not runs:
        raise ParameterError("no runs: give the results of one or more")
    figures = [
        class_agnostic(results, samples, kind, resamples=resamples, seed=seed)
        for results in (teacher, *runs, *(as_many(run, teacher, kind) for run in runs))
    ]
    return Pupils(figures[0], tuple(figures[1 : 1 + len(runs)]), tuple(figures[1 + len(runs) :]))


def as_many(results: Sequence[Result], others: Sequence[Result], kind: str = "segm") -> list[Result]:
    """The surest of ``results`` in each image, at most as many as ``others`` has there; equal scores rank as in
    :func:`class_agnostic`, so that the order of the results changes nothing."""
    counts = Counter(result["image_id"] for result in others)
    by_image = defaultdict(list)
    for number, result in enumerate(results):
        shape = mask_of(result, number, None) if kind == "segm" else box_of(result, number)
        by_image[result["image_id"]].append((-result["score"], -shape["area"], shape["tie"], number))
    return [results[row[-1]] for image in sorted(by_image) for row in sorted(by_image[image])[: counts[image]]]
