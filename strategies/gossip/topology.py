"""Who is whose neighbour in decentralised training, and with which weights models are mixed.

Metropolis-Hastings weights (Xiao, Boyd, "Fast Linear Iterations for Distributed Averaging", 2004): neighbours
i and j give each other W_ij = 1 / (1 + max(d_i, d_j)) with d the number of neighbours, and W_ii what is left
of one. W is symmetric, so each of its columns adds up to one as well. On the complete graph W_ij = 1/n.
"""

import math

import numpy as np
from numpy.typing import NDArray

from strategies.core.errors import LetheError
from strategies.core.seeds import numpy_generator

Adjacency = NDArray[np.bool_]
Weights = NDArray[np.float64]

_MOST_DRAWS = 1000


def adjacency(topology: str, size: int, edge_probability: float = 0.5, seed: int = 0) -> Adjacency:
    """Return which nodes are neighbours, shape [n, n], symmetric, without loops, connected.

    Parameters
    ----------
    topology
        ``ring``; ``torus``: rows × columns with the ends joined, where rows is the largest divisor of n up to
        √n, so that a prime number of nodes is a ring; ``complete``; ``random``: Erdős–Rényi, drawn anew until
        it is connected.
    size
        Number of nodes, at least 1.

    Raises
    ------
    LetheError
        If no connected graph was drawn.
    """
    if topology == "complete":
        return ~np.eye(size, dtype=bool)
    if topology == "random":
        return _random(size, edge_probability, seed)
    rows = next(r for r in range(math.isqrt(size), 0, -1) if size % r == 0) if topology == "torus" else 1
    columns = size // rows
    found = np.zeros((size, size), dtype=bool)
    for node in range(size):
        row, column = divmod(node, columns)
        for other in (row * columns + (column + 1) % columns, (row + 1) % rows * columns + column):
            found[node, other] = found[other, node] = other != node
    return found


def _random(size: int, edge_probability: float, seed: int) -> Adjacency:
    generator = numpy_generator(seed, "topology", size)
    for _ in range(_MOST_DRAWS):
        upper = np.triu(generator.random((size, size)) < edge_probability, 1)
        if is_connected(found := upper | upper.T):
            return found
    raise LetheError(
        f"strategy.edge-probability: given {edge_probability:g}, but none of {_MOST_DRAWS} random graphs "
        f"over {size} clients was connected; raise it"
    )


def is_connected(found: Adjacency) -> bool:
    """Say whether every node can be reached from the first."""
    reached = np.zeros(len(found), dtype=bool)
    reached[0] = True
    for _ in range(len(found)):
        reached |= found[reached].any(axis=0)
    return bool(reached.all())


def mixing_weights(found: Adjacency) -> Weights:
    """Return the Metropolis-Hastings weights W of a graph, shape [n, n].

    Examples
    --------
    The path 0 – 1 – 2: the middle node has two neighbours.

    >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    >>> mixing_weights(path).round(3).tolist()
    [[0.667, 0.333, 0.0], [0.333, 0.333, 0.333], [0.0, 0.333, 0.667]]
    """
    degrees = found.sum(axis=1)
    weights = found / (1.0 + np.maximum.outer(degrees, degrees))
    return np.asarray(weights + np.diag(1.0 - weights.sum(axis=1)), dtype=np.float64)


def second_eigenvalue(weights: Weights) -> float:
    """Return the second largest modulus of the eigenvalues of W: the factor by which disagreement falls.

    One minus it is the spectral gap. 0 for a single node.
    """
    moduli = np.sort(np.abs(np.linalg.eigvalsh(weights)))
    return float(moduli[-2]) if len(moduli) > 1 else 0.0
