"""What the server says of a federation's data, so that all clients make the same inputs of theirs.

It travels in the record ``config`` of every message: the names of the classes, the schema of a table's
columns, and the scale that columns are brought to.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from app.data.columns import Columns
from app.data.scale import Scale
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples


@dataclass(frozen=True)
class Terms:
    """What the server says of the data.

    Parameters
    ----------
    class_names
        One per class of the run; empty: not known.
    columns
        The schema of tables; None: there are none, or each table's own holds.
    scale
        Means and deviations of the inputs' columns, one after the other; empty: inputs stay as they are.
    """

    class_names: tuple[str, ...] = ()
    columns: Columns | None = None
    scale: tuple[float, ...] = ()

    @staticmethod
    def of(config: Mapping[str, object], class_names: tuple[str, ...]) -> "Terms":
        """Return what a message's record says; `class_names` are the names that it gives.

        Raises
        ------
        BadInput
            If it is damaged.
        """
        said, numbers = config.get(wire.COLUMNS), config.get(wire.SCALE)
        columns = _schema(said) if isinstance(said, str) else None
        scale = tuple(map(float, numbers)) if isinstance(numbers, Sequence) else ()
        half = len(scale) // 2
        if len(scale) % 2 or not all(map(math.isfinite, scale)) or not all(d > 0 for d in scale[half:]):
            raise BadInput(f"{wire.SCALE}: expected as many means as deviations above 0, all finite")
        return Terms(class_names, columns, scale)

    def to_config(self) -> dict[str, str | list[float]]:
        """Return the schema and the scale as entries of a message's record."""
        entries: dict[str, str | list[float]] = {}
        if self.columns is not None:
            entries[wire.COLUMNS] = json.dumps(self.columns.to_json())
        if self.scale:
            entries[wire.SCALE] = list(self.scale)
        return entries

    def scaled(self, examples: Examples) -> Examples:
        """Return examples of a table on the run's scale; as they are if there is none.

        Raises
        ------
        BadInput
            If the table has another number of columns.
        """
        return Scale.of_numbers(self.scale).scaled(examples) if self.scale else examples


NO_TERMS = Terms()


@lru_cache(maxsize=4)
def _schema(text: str) -> Columns:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    return Columns.from_json(document, wire.COLUMNS)
