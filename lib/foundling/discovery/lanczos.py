"""The largest eigenvalues of one symmetric operator on the CPU: ARPACK's Lanczos iterations, and a second look.

A single sequence of Lanczos vectors meets each eigenvalue once, whatever its multiplicity. What has been found is
therefore taken out, and the largest eigenvalue of the rest sought: if it belongs among those found, it is added.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from threadpoolctl import ThreadpoolController

LOOSE = 1e-4  # tolerance of the second look: the error of its eigenvalue is about the square
MARGIN = 1e-6  # how much larger an eigenvalue of the rest must be to belong among those found
FEW = 10  # vectors kept in the second look
BLAS = ThreadpoolController().select(user_api="blas")

Vector = Float[np.ndarray, " patch"]
Pairs = tuple[Float[np.ndarray, " pair"], Float[np.ndarray, "pair patch"]]


def lanczos(product: Callable[[Vector], Vector], patches: int, count: int, tolerance: float) -> Pairs | None:
    """The ``count`` largest eigenvalues of ``product``, descending, and their unit vectors.

    ``product`` is symmetric with a spectrum within [-2, 1]. An eigenvalue of higher multiplicity is missed only where
    it lies less than 1e-6 above the least of those returned. None where the iterations do not converge to residuals of
    ``tolerance`` times the eigenvalue. The same operator gives the same result.
    """
    # Of a multiple eigenvalue's vectors, the first look finds the one that lies in its start: the second needs another.
    start, other = np.random.default_rng(0).standard_normal((2, patches))
    try:
        with BLAS.limit(limits=1):  # a product with one vector is too short a task to share
            values, vectors = _largest(product, start, count, tolerance)
            for _ in range(count):
                deflated = _without(product, vectors)
                (rest,), _ = _largest(deflated, other, 1, LOOSE, FEW)
                if rest <= values[-1] + MARGIN:
                    break
                (value,), missed = _largest(deflated, other, 1, tolerance)
                place = int(np.sum(values >= value))
                values = np.insert(values, place, value)[:count]
                vectors = np.insert(vectors, place, missed, axis=0)[:count]
    except ArpackError:  # no convergence, or a start within a small invariant subspace
        return None
    return values, vectors


def _largest(
    product: Callable[[Vector], Vector], start: Vector, count: int, tolerance: float, kept: int | None = None
) -> Pairs:
    patches = len(start)
    operator = LinearOperator((patches, patches), matvec=product, dtype=np.float64)
    limit = max(50, patches // 10)
    values, vectors = eigsh(operator, count, which="LA", v0=start, ncv=kept, maxiter=limit, tol=tolerance, rng=0)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors.T[order]


def _without(product: Callable[[Vector], Vector], known: Float[np.ndarray, "pair patch"]) -> Callable[[Vector], Vector]:
    """The operator with the eigenvalues of the ``known`` unit vectors moved below all others."""

    def deflated(x: Vector) -> Vector:
        along = known @ x
        y = product(x - along @ known)
        return y - (known @ y) @ known - 3 * along @ known

    return deflated
