"""Settings of coded gradient descent, all of them keys of the section ``strategy``."""

from pydantic import Field

from strategies.core.settings import Settings


class CodedSettings(Settings):
    """What ``coded-gd`` reads.

    Attributes
    ----------
    stragglers
        How many clients may fail to answer in a round, at least 0 and fewer than there are; a client holds
        the data of as many others.
    """

    stragglers: int = Field(default=1, ge=0)
