"""A function that keeps what it has returned, within a number of bytes: few large results or many small."""

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

ENTRY_BYTES = 1024
"""What an entry takes besides its result, roughly."""


def kept_within(most: int, size_of: Callable[[_T], int]) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
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

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        held: OrderedDict[object, tuple[_T, int]] = OrderedDict()
        total = [0]

        @wraps(function)
        def kept(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            key = (args, tuple(sorted(kwargs.items()))) if kwargs else args
            found = held.get(key)
            if found is not None:
                held.move_to_end(key)
                return found[0]
            result = function(*args, **kwargs)
            size = size_of(result) + ENTRY_BYTES
            if size <= most:
                held[key] = result, size
                total[0] += size
            while total[0] > most:
                total[0] -= held.popitem(last=False)[1][1]
            return result

        return kept

    return decorate
