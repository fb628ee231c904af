"""Settings of SCAFFOLD, keys of the section ``strategy``."""

from collections.abc import Mapping

from pydantic import Field

from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings
from strategies.core.traits import Traits


class ScaffoldSettings(Settings):
    """What ``scaffold`` reads.

    Attributes
    ----------
    control_share
        Factor on the correction c − c_i of each local step, in [0, 1]; 1 is SCAFFOLD; neutral 0, which is
        FedAvg.
    """

    control_share: float = Field(default=1.0, ge=0, le=1)


def _check(flat: Mapping[str, Scalar]) -> None:
    if flat["train.optimizer"] != "sgd" or flat["train.momentum"]:
        key = "train.optimizer" if flat["train.optimizer"] != "sgd" else "train.momentum"
        raise BadInput(
            f"{key}: given {shown(flat[key])}, but scaffold tells a client's mean gradient from its way, "
            'which takes plain steps; allowed train.optimizer = "sgd" and train.momentum = 0'
        )
    if flat["compression.upload-threshold"]:
        raise BadInput(
            f"compression.upload-threshold: given {flat['compression.upload-threshold']}, but with scaffold "
            "a client that withholds its update would keep back its control variate as well; allowed 0"
        )


TRAITS = (
    Traits(
        "scaffold",
        ScaffoldSettings,
        check=_check,
        noised=False,
        hidden="none",
        shares_rounds=True,
        helps=("drift",),
    ),
)
