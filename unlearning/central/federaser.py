"""FedEraser's calibration: the logged length of an update, in a fresh direction.

Liu, Ma, Yang, Wang, Liu, "FedEraser: Enabling Efficient Client-Level Data Removal from Federated Learning
Models", IWQoS 2021, arXiv 2012.13891. For each kept round and remaining client k,

    Ũ_k = ‖U_k‖ · Û_k / ‖Û_k‖,    M ← M + Σ_k w_k Ũ_k / Σ_k w_k,

U_k the update logged then, Û_k the update of a short training from the current unlearned model M. Norms are
of the update as a whole. The released code computes U_k against the *next* global model, which already
contains most of the step and so shrinks it; it calibrates the clients' average, layer by layer; and it
divides by K − 1 twice. The paper is implemented here.

Guarantee: approximate; the lengths of the steps are those of the run that contained the forgotten client.
Needs: the log of the kept rounds, the remaining clients online.
Cost: one visit to every remaining client per kept round, with a share of the local work of retraining.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def logged_update(client_model: Tensor, received_model: Tensor) -> Tensor:
    """Return U_k, the client's model minus the global model it had received in that round, shape [P]."""
    return client_model - received_model


def calibrate(logged: Tensor, fresh: Tensor) -> Tensor:
    """Return Ũ: the fresh update scaled to the logged update's norm.

    Parameters
    ----------
    logged
        U, shape [P].
    fresh
        Û, shape [P]; a zero update has no direction, and the result is zero then.

    Returns
    -------
    Tensor
        Shape [P], in the dtype of `fresh`.
    """
    return with_norm(float(torch.linalg.vector_norm(logged.double())), fresh)


def with_norm(norm: float, fresh: Tensor) -> Tensor:
    """Return the fresh update scaled to a norm: all that calibration needs to know of the logged update.

    Parameters
    ----------
    norm
        ‖U‖, at least 0.
    fresh
        Û, as in `calibrate`.
    """
    length = float(torch.linalg.vector_norm(fresh.double()))
    if length == 0:
        return torch.zeros_like(fresh)
    return (fresh.double() * (norm / length)).to(fresh.dtype)


def calibrated_step(logged: Sequence[Tensor], fresh: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return Σ w_k Ũ_k / Σ w_k over the remaining clients of a round, shape [P], float64.

    Parameters
    ----------
    logged, fresh
        U_k and Û_k, in the same order of clients.
    weights
        w_k as used in that round, positive; only their ratios matter.

    Raises
    ------
    ValueError
        If the three differ in length or are empty.
    """
    if not len(logged) == len(fresh) == len(weights) or not weights:
        raise ValueError(
            f"expected one weight per pair of updates, got {len(logged)}, {len(fresh)} and {len(weights)}"
        )
    pairs = zip(logged, fresh, weights, strict=True)
    total = sum((w * calibrate(old.double(), new.double()) for old, new, w in pairs), torch.zeros(()))
    return total / sum(weights)
