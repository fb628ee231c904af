"""A function that keeps what it has returned, within a number of bytes: few large results or many small."""

from collections import OrderedDict
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, ParamSpec, TypeVar, final

_P = ParamSpec("_P")
_T = TypeVar("_T")

ENTRY_BYTES = 1024
"""What an entry takes besides its result, roughly."""


def kept_within(most: int, size_of: Callable[[_T], int]) -> "Callable[[Callable[_P, _T]], Kept[_P, _T]]":
    """Return a decorator like `functools.lru_cache`, but bounded by bytes.

    What was not asked for the longest goes first; a result that alone is larger is not kept.

    Parameters
    ----------
    most
        Bytes, of the results and of `ENTRY_BYTES` for each.
    size_of
        Returns the bytes of a result.

    Examples
    --------
    >>> calls = []
    >>> @kept_within(3 * (ENTRY_BYTES + 1), len)
    ... def letter(number):
    ...     calls.append(number)
    ...     return "abcdef"[number]
    >>> [letter(i) for i in (0, 1, 2, 0, 3, 0, 1)], calls
    (['a', 'b', 'c', 'a', 'd', 'a', 'b'], [0, 1, 2, 3, 1])
    """
    return lambda function: Kept(function, most, size_of)


@final
class Kept(Generic[_P, _T]):
    """A function that keeps results; parameters as for `kept_within`."""

    def __init__(self, function: Callable[_P, _T], most: int, size_of: Callable[[_T], int]) -> None:
        self._function, self._most, self._size_of = function, most, size_of
        self._held: OrderedDict[object, tuple[_T, int]] = OrderedDict()
        self._total = 0
        update_wrapper(self, function)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what the function returns, or returned before."""
        key = (args, tuple(sorted(kwargs.items()))) if kwargs else args
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
            return found[0]
        result = self._function(*args, **kwargs)
        size = self._size_of(result) + ENTRY_BYTES
        if size <= self._most:
            self._held[key] = result, size
            self._total += size
        while self._total > self._most:
            self._total -= self._held.popitem(last=False)[1][1]
        return result

    def cache_clear(self) -> None:
        """Forget all that is kept."""
        self._held.clear()
        self._total = 0
