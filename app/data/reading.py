"""How a data set's files are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.config.settings import DataSettings
from app.data.folder import Lazy

Kind = Literal["classes", "numbers"]


@dataclass(frozen=True)
class Reading:
    """How a data set's files are read.

    Parameters
    ----------
    root
        Folder of torchvision's data sets; empty: the default.
    download
        Whether missing files may be fetched to it.
    size
        Side of the squares that images of several sizes are scaled to; 0: they are refused.
    lazy
        Whether images of a folder are decoded when a batch is asked for.
    target
        Column of a table that is to be predicted.
    targets
        Whether targets are labels or numbers.
    columns
        File with the schema of a table; empty: the table's own.
    """

    root: str = ""
    download: bool = False
    size: int = 0
    lazy: Lazy = "auto"
    target: str = ""
    targets: Kind = "classes"
    columns: str = ""

    @staticmethod
    def of(data: DataSettings) -> "Reading":
        """Return how the settings say that files are read."""
        targets: Kind = "numbers" if data.targets == "numbers" else "classes"
        return Reading(data.root, data.download, data.size, data.lazy, data.target, targets, data.columns)

    @property
    def schema(self) -> Path | None:
        """The file with the schema of a table, if one is given."""
        return Path(self.columns).expanduser() if self.columns else None
