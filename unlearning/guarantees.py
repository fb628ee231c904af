"""The guarantee of a forgetting, computed from method and run: a mask may remember what a method forgets."""

from unlearning.traits.base import Traits

CHOSEN_BY_DATA = frozenset({"imp", "omp"})
"""Masks that were chosen by weights which had seen all data."""


def guarantee_of(method: Traits, mask_origin: str, *, unchanged: bool = False) -> str:
    """Return what a method guarantees on a run whose mask was chosen by `mask_origin`, empty for a dense run.

    `unchanged` says that there was nothing to forget, so that the model is the one from before.
    """
    if unchanged:
        return "exact: nothing was to be forgotten, and the model is the one from before"
    if mask_origin not in CHOSEN_BY_DATA or method.prunes_anew:
        return method.guarantee
    held = f"the mask ({mask_origin}) was chosen by weights that had seen the forgotten data"
    if method.guarantee == "exact":
        return f"not exact: the weights are trained without the forgotten data, but {held}"
    return f"{method.guarantee}; and {held}"
