"""Small finished runs made by hand, for the tests of forgetting."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.log.update_log import UpdateLog
from strategies.plan import TrainingPlan
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from unlearning.methods import METHODS
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

SHORT = ForgetSettings.stored(
    {
        "epochs": 2,
        "recovery-rounds": 1,
        "unlearning-rounds": 2,
        "fisher-examples": 20,
        "alpha-search": "0.5, 1",
        "max-retain-drop": 100,
        "ssd": {"alpha": 1},
    }
)
"""Little work for every method, by the keys that all shared in version 0.1."""


class OneParameter(nn.Module):
    """Logits (w·x, 0): a model with a single parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape [n, 2]."""
        return torch.cat([x * self.w, torch.zeros_like(x)], dim=1)


def linear_model() -> nn.Module:
    """Return a model with 2·3 + 3 parameters, always with the same weights."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).view(3, 2) / 10)
        model.bias.zero_()
    return model


GLOBAL_METHODS = [
    name
    for name, each in METHODS.items()
    if each.needs(ForgetSettings()).models != "client"
    and not each.needs(ForgetSettings()).convex
    and not each.prunes_anew
]
"""Methods that work on the one model that all clients share, dense or on a mask that they keep."""
Rounds = Sequence[Mapping[str, tuple[float, Tensor]]]
"""Per round: client-id -> (number of examples, update)."""


def logged_run(
    path: Path,
    rounds: Rounds,
    *,
    initial: Tensor,
    build_model: object = OneParameter,
    retention: str = "full",
    averaging: bool = True,
    clients: Sequence[str] = ("a", "b"),
    public: Examples | None = None,
) -> TrainedRun:
    """Return a run whose rounds averaged exactly these updates; M_F is computed here, in float64."""
    layout = wire.Layout.of(build_model().state_dict())  # type: ignore[operator]
    final = initial.double()
    with UpdateLog.create(path, layout, retention) as log:
        for number, updates in enumerate(rounds, start=1):
            log.begin_round(number)
            total = sum(weight for weight, _ in updates.values())
            for client_id, (weight, delta) in updates.items():
                log.add(number, client_id, weight, int(weight), delta, float(delta.norm()))
                final = final + weight / total * delta.double()
            log.commit_round(number, averaging)
    return TrainedRun(
        plan=TrainingPlan(StrategySettings(), SelectionSettings(), len(rounds), seed=0),
        train=TrainSettings(),
        build_model=build_model,  # type: ignore[arg-type]
        layout=layout,
        initial=initial,
        final=final.float(),
        log=UpdateLog.open(path),
        num_groups=2,
        public=public,
        clients=tuple(clients),
    )
