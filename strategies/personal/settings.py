"""Settings of personalisation, all of them keys of the section ``strategy``."""

from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings
from strategies.core.traits import Traits


class PersonalSettings(Settings):
    """What ``per-fedavg`` and ``ditto`` read.

    Attributes
    ----------
    meta_gradient
        ``per-fedavg``: ``hessian-free``, or ``first-order``, which leaves the second derivative out.
    inner_rate
        ``per-fedavg``: step size of the personalisation, at least 0; neutral 0, which is FedAvg.
    personal_steps
        ``per-fedavg``: full-batch steps of personalisation before a client measures, at least 1.
    ditto_lambda
        ``ditto``: weight of (lambda/2)‖v_k − w‖², at least 0; 0 is local training.
    """

    meta_gradient: Literal["hessian-free", "first-order"] = "hessian-free"
    inner_rate: float = Field(default=0.01, ge=0)
    personal_steps: int = Field(default=1, ge=1)
    ditto_lambda: float = Field(default=0.1, ge=0)


TRAITS = (
    Traits(
        "per-fedavg",
        PersonalSettings,
        ("meta_gradient", "inner_rate", "personal_steps"),
        noised=False,
        shares_rounds=True,
        hidden="none",
        helps=("labels",),
        page="docs/personalisation.md",
    ),
    Traits(
        "ditto",
        PersonalSettings,
        ("ditto_lambda",),
        noised=False,
        hidden="none",
        personal_models=True,
        helps=("labels",),
        page="docs/personalisation.md",
    ),
)
