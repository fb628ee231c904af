"""Settings of coded gradient descent, all of them keys of the section ``strategy``."""

from collections.abc import Mapping

from pydantic import Field

from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings
from strategies.core.traits import Traits


class CodedSettings(Settings):
    """What ``coded-gd`` reads.

    Attributes
    ----------
    stragglers
        How many clients may fail to answer in a round, at least 0 and fewer than there are; a client holds
        the data of as many others.
    """

    stragglers: int = Field(default=1, ge=0)


def _check(flat: Mapping[str, Scalar]) -> None:
    if flat["data.path"]:
        raise BadInput(
            f"data.path: given {shown(flat['data.path'])}, but with coded-gd every client holds copies of "
            "others' data, which must lie in one place; allowed a data set that is partitioned"
        )
    clients = int(flat["data.clients"])
    if 0 < clients <= int(flat["strategy.stragglers"]):
        raise BadInput(
            f"strategy.stragglers: given {flat['strategy.stragglers']}, allowed fewer than data.clients, "
            f"which is {clients}"
        )


TRAITS = (
    Traits(
        "coded-gd",
        CodedSettings,
        check=_check,
        averages=False,
        encodes=False,
        noised=False,
        hidden="none",
        local_steps=False,
        only_retraining="every message mixes the data of several clients",
        only_clients="other clients hold copies of the data, which such a request does not reach",
        page="docs/coding.md",
    ),
)
