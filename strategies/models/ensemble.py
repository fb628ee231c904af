"""Models that answer together: one module, whose answer is what the members say in the mean.

The state of an ensemble is that of its members one after the other, so its vector is theirs joined, and what
saves, sends, evaluates or exports a model does so with an ensemble as well.

A member that nobody has trained, as its group has no client, is absent: all its trained entries are zero, and
it has no part in the answer. So a model says by itself which members it has.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from strategies.core.layout import Layout, State
from strategies.task import Task

_MEMBERS = "members"


@final
class Ensemble(nn.Module):
    """Members that each answer, and whose answers become one (see `Task.combined`).

    Parameters
    ----------
    members
        At least one; all of one architecture.
    """

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._combined = task.combined

    @property
    def present(self) -> list[nn.Module]:
        """The members that are not absent; all, if there is none."""
        found = [member for member in self.members if _is_present(member)]
        return found or list(self.members)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the outputs of the members that are present, combined."""
        return self._combined([member(*inputs, **named) for member in self.present])


def without_absent(model: nn.Module, task: Task) -> nn.Module:
    """Return an ensemble of the members that are present alone; any other model as it is."""
    if not isinstance(model, Ensemble):
        return model
    return Ensemble(model.present, task)


def _is_present(member: nn.Module) -> bool:
    return any(bool(p.detach().any()) for p in member.parameters() if p.requires_grad)


def ensemble_of(make: Callable[[int], nn.Module], count: int, task: Task) -> nn.Module:
    """Return an ensemble of what `make` returns for 0 to `count` − 1; of a single one, that itself."""
    return make(0) if count == 1 else Ensemble([make(number) for number in range(count)], task)


def whole_layout(member: Layout, count: int) -> Layout:
    """Return the layout of an ensemble of members with this layout; of a single one, its own.

    Examples
    --------
    >>> whole_layout(Layout(("w",), ((2,),)), 2).names
    ('members.0.w', 'members.1.w')
    """
    if count == 1:
        return member
    names = tuple(f"{_MEMBERS}.{number}.{name}" for number in range(count) for name in member.names)
    return Layout(names, member.shapes * count)


def member_layout(whole: Layout, count: int) -> Layout:
    """Return the layout of each member of an ensemble with this layout; of a single one, its own."""
    if count == 1:
        return whole
    size = len(whole.names) // count
    prefix = f"{_MEMBERS}.0."
    return Layout(tuple(name.removeprefix(prefix) for name in whole.names[:size]), whole.shapes[:size])


def first_member(state: State, count: int) -> State:
    """Return the state of the first member in that of an ensemble; of a single one, all of it."""
    if count == 1:
        return state
    prefix = f"{_MEMBERS}.0."
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def is_whole(record: ArrayRecord, member: Layout, count: int) -> bool:
    """Whether a record has as many arrays as an ensemble of `count` members, and more than one of these."""
    return count > 1 and len(record) == count * len(member.names)


def absent_in(flat: Tensor, count: int) -> list[int]:
    """Return the numbers of the members that are absent, given the vector of an ensemble."""
    members = enumerate(members_of(flat, count) if count > 1 else ())
    return [number for number, member in members if not bool(member.any())]


def emptied(flat: Tensor, count: int, numbers: Iterable[int]) -> Tensor:
    """Return the vector of an ensemble whose members of these numbers are absent."""
    parts = list(members_of(flat, count))
    for number in numbers:
        parts[number] = torch.zeros_like(parts[number])
    return torch.cat(parts)


def members_of(flat: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return views of the members' vectors in that of their ensemble, shape [count · P] -> [P] each."""
    return torch.tensor_split(flat, count)
