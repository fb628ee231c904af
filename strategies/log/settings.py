"""Settings of the update log: the section ``log`` of the run config."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from strategies.core.settings import Settings


class LogSettings(Settings):
    """What the server keeps of every client's updates, for forgetting later.

    Attributes
    ----------
    enabled
        Whether updates are logged; without a log only methods that need none can forget.
    retention
        ``full`` (every update), ``sum`` (the weighted sum per client, all that subtraction needs) or
        ``interval:<k>`` (every k-th round, k at least 1; ``interval:1`` keeps what ``full`` keeps).
    dtype
        Precision of the stored updates; neutral ``float32``, the precision of the updates themselves.
    encrypted
        Whether each client's updates are encrypted with a key of their own, which a purge destroys first.
    keys
        Folder for the keys of encrypted logs, a folder in it for each log; ``~`` is the user's home.
    """

    enabled: bool = True
    retention: str = "full"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    encrypted: bool = False
    keys: str = Field(default="~/.lethe/keys/logs", min_length=1)

    @property
    def keys_path(self) -> Path | None:
        """``keys`` as an absolute path; None where the log is not encrypted."""
        return Path(self.keys).expanduser().absolute() if self.encrypted else None

    @property
    def interval(self) -> int:
        """Rounds from one kept round to the next: k of ``interval:<k>``, else 1."""
        return int(self.retention.partition(":")[2] or 1)

    @field_validator("retention")
    @classmethod
    def _retention_known(cls, value: str) -> str:
        if not re.fullmatch(r"full|sum|interval:0*[1-9]\d*", value):
            raise ValueError("'full', 'sum' or 'interval:<k>' with an integer k >= 1")
        return value
