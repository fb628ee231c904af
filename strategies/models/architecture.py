"""The names of clients' architectures, such as ``cnn-128-256@0.2``."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"(cnn|mlp)((?:-[1-9]\d*)+)(?:@(0(?:\.\d+)?))?")
_FEWEST = {"cnn": 2, "mlp": 1}
_MOST = 3


@dataclass(frozen=True)
class Architecture:
    """A network that a name describes.

    Parameters
    ----------
    kind
        ``cnn`` or ``mlp``.
    sizes
        Channels of each convolution, or units of each hidden layer.
    dropout
        Rate after each of them, in [0, 1); neutral 0.
    """

    kind: str
    sizes: tuple[int, ...]
    dropout: float = 0.0

    @staticmethod
    def parse(name: str) -> "Architecture":
        """Return what a name describes.

        Raises
        ------
        ValueError
            If it describes nothing.

        Examples
        --------
        >>> Architecture.parse("cnn-64-128-256@0.2")
        Architecture(kind='cnn', sizes=(64, 128, 256), dropout=0.2)
        """
        match = _NAME.fullmatch(name)
        sizes = tuple(int(size) for size in match[2][1:].split("-")) if match else ()
        if not match or not _FEWEST[match[1]] <= len(sizes) <= _MOST:
            raise ValueError(
                "architectures separated by commas: cnn-<channels>-<channels>, with two or three numbers, or "
                "mlp-<units>, with one to three, each with @<dropout rate> where it has any"
            )
        return Architecture(match[1], sizes, float(match[3] or 0.0))
