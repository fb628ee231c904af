"""Bytes that are made a piece at a time: the content of a file that is too large to be copied."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class Pieces:
    """A byte string in pieces.

    Parameters
    ----------
    length
        Of the whole.
    make
        Returns the pieces from the first on, each valid until the next.
    """

    length: int
    make: Callable[[], Iterator[Chunk]]

    def __len__(self) -> int:
        """Return the length of the whole."""
        return self.length

    def __iter__(self) -> Iterator[Chunk]:
        """Return the pieces."""
        return self.make()

    def of_size(self, size: int, first: int = 0) -> Iterator[bytearray]:
        """Yield the same bytes in pieces of one size, the last perhaps smaller; one piece at least.

        Parameters
        ----------
        first
            Bytes of a piece before those; 0: there is none.
        """
        held, wanted = bytearray(), first or size
        for piece in self:
            held += piece
            while len(held) > wanted:
                yield held[:wanted]
                del held[:wanted]
                wanted = size
        yield held


def whole(content: Chunk) -> Pieces:
    """Return a byte string as a single piece."""
    return Pieces(len(content), lambda: iter((content,)))
