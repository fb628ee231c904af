"""Reads what a user has as examples."""

from typing import Any

import torch

from strategies.core.errors import BadInput
from strategies.core.examples import Examples, GroupsOf, TensorExamples, labels_as_groups


def as_examples(thing: Any, *, target: str = "", group_of: GroupsOf = labels_as_groups) -> Examples:
    """Return examples from what a user has; BadInput if it is nothing that can be read."""
    if isinstance(thing, Examples):
        return thing
    if isinstance(thing, tuple) and len(thing) == 2:
        return TensorExamples(torch.as_tensor(thing[0]).float(), torch.as_tensor(thing[1]), group_of)
    raise BadInput(f"data: given a {type(thing).__name__}, allowed a pair (inputs, targets)")
