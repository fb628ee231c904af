"""Settings of FedMD, all of them keys of the section ``strategy``."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from strategies.core.conditions import Condition, is_number, only_with
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings, split_list, split_pairs
from strategies.core.traits import TaskNeed, Traits
from strategies.models.architecture import Architecture

AUTHORS_MODELS = (
    "cnn-128-256@0.2, cnn-128-384@0.2, cnn-128-512@0.2, cnn-256-256@0.3, cnn-256-512@0.4, "
    "cnn-64-128-256@0.2, cnn-64-128-192@0.2, cnn-128-192-256@0.2, cnn-128-128-128@0.3, cnn-128-128-192@0.3"
)
"""The ten models of the paper's experiments: channels of the convolutions, then the dropout rate."""
MOST_ALIGNED = 5000
"""Public examples per round where ``strategy.alignment`` leaves it open, as in the paper."""


class FedMDSettings(Settings):
    """What FedMD reads; epochs are passes, step sizes are Adam's.

    Attributes
    ----------
    models
        Architectures of the clients, separated by commas, used in turn: ``cnn-<channels>-<channels>…`` or
        ``mlp-<units>…``, each with ``@<dropout rate>`` where it has any. A node's own ``model.name`` comes
        first.
    alignment
        Public examples on which the clients answer in a round, at least 0; 0 takes all, 5000 at most.
    consensus
        ``mean``; ``weighted`` by ``weights``; ``confidence``, where each row of a client's logits counts by
        its certainty; or ``variance``, where each column counts by how much it varies over the examples.
    weights
        ``weighted``: ``client-id=weight`` pairs separated by commas, each above 0; 1 for the others.
    public_epochs
        Transfer learning on the public data, at least 0; 0 leaves it out.
    public_batch_size
        Examples per step of it, at least 1.
    private_epochs
        Transfer learning on the client's own data, at least 0.
    private_batch_size
        Examples per step of it, at least 1.
    digest_loss
        ``mae``: mean absolute error on logits; ``kl``: divergence from the softened consensus.
    digest_temperature
        ``kl``: temperature, above 0; neutral 1.
    digest_epochs
        Passes over a round's alignment examples, at least 0.
    digest_batch_size
        Examples per step of the digest, at least 1.
    revisit_epochs
        Passes over the client's own data after each digest, at least 0.
    revisit_batch_size
        Examples per step of the revisit, at least 1.
    step_size
        Adam's, above 0, wherever a client trains.
    logit_clip
        Bound on the Euclidean norm of each row of logits, at least 0; neutral 0: none.
    logit_noise
        Standard deviation of the noise on each logit in units of ``logit-clip``, at least 0; neutral 0.
    logit_delta
        δ at which the privacy loss of noised logits is stated, in (0, 1).
    upper_bound
        Whether each client also trains its model on all clients' data, for comparison; simulation only.
    keep_transferred
        Whether a client keeps its model of before the first round; ``redistill`` can then start from it
        without transfer learning. Doubles the client's state.
    """

    models: str = AUTHORS_MODELS
    alignment: int = Field(default=0, ge=0)
    consensus: Literal["mean", "weighted", "confidence", "variance"] = "mean"
    weights: str = ""
    public_epochs: int = Field(default=20, ge=0)
    public_batch_size: int = Field(default=128, ge=1)
    private_epochs: int = Field(default=25, ge=0)
    private_batch_size: int = Field(default=32, ge=1)
    digest_loss: Literal["mae", "kl"] = "mae"
    digest_temperature: float = Field(default=1.0, gt=0)
    digest_epochs: int = Field(default=1, ge=0)
    digest_batch_size: int = Field(default=256, ge=1)
    revisit_epochs: int = Field(default=4, ge=0)
    revisit_batch_size: int = Field(default=5, ge=1)
    step_size: float = Field(default=0.001, gt=0)
    logit_clip: float = Field(default=0.0, ge=0)
    logit_noise: float = Field(default=0.0, ge=0)
    logit_delta: float = Field(default=1e-5, gt=0, lt=1)
    upper_bound: bool = False
    keep_transferred: bool = False

    @property
    def model_names(self) -> tuple[str, ...]:
        """``models``, parsed."""
        return tuple(name.strip() for name in self.models.split(","))

    @property
    def consensus_weights(self) -> dict[str, float]:
        """``weights``, parsed: weight by client-id."""
        return _parse_weights(self.weights)

    def alignment_size(self, num_public: int) -> int:
        """Return the number of public examples in a round."""
        return min(self.alignment or MOST_ALIGNED, num_public)

    @field_validator("models")
    @classmethod
    def _models_named(cls, value: str) -> str:
        for name in value.split(","):
            Architecture.parse(name.strip())
        return value

    @field_validator("weights")
    @classmethod
    def _weights_parse(cls, value: str) -> str:
        _parse_weights(value)
        return value


def _parse_weights(text: str) -> dict[str, float]:
    wanted = "'client-id=weight' pairs separated by commas, each weight above 0"
    split_list(text)  # Says by itself what is wrong with a list
    try:
        weights = split_pairs(text, "weight")
    except ValueError:
        raise ValueError(wanted) from None
    if not all(0 < weight < float("inf") for weight in weights.values()):
        raise ValueError(wanted)
    return weights


def _check(flat: Mapping[str, Scalar]) -> None:
    if (
        not is_number(str(flat["data.public"]))
        and flat["data.public-labels"] == "none"
        and int(flat["strategy.public-epochs"]) > 0
    ):
        raise BadInput(
            'data.public-labels: given "none", but fedmd trains on the public labels first; allowed "own", '
            '"shared", or strategy.public-epochs = 0'
        )
    if flat["log.retention"] == "sum":
        raise BadInput(
            'log.retention: given "sum", but with fedmd every round is about other examples, whose answers '
            'have no meaningful sum; allowed "full" or "interval:<k>"'
        )


TRAITS = (
    Traits(
        "fedmd",
        FedMDSettings,
        task_need=lambda flat: TaskNeed("vectors", "averages one vector of outputs per example"),
        conditions=(
            only_with("strategy.weights", "strategy.consensus", "weighted"),
            only_with("strategy.digest-temperature", "strategy.digest-loss", "kl"),
            Condition(
                ("strategy.logit-noise",),
                "strategy.logit-clip",
                lambda clip: float(clip) > 0,
                "strategy.logit-clip above 0, which bounds what the noise must hide",
            ),
            Condition(
                ("strategy.logit-delta",),
                "strategy.logit-noise",
                lambda noise: float(noise) > 0,
                "noise above 0",
            ),
        ),
        check=_check,
        averages=False,
        encodes=False,
        noised=False,
        hidden="none",
        local_steps=False,
        one_model=False,
        public_data="needs public data",
        protecting=(
            Condition(
                ("strategy.logit-noise", "strategy.logit-clip", "strategy.logit-delta"),
                "strategy.logit-noise",
                lambda noise: float(noise) > 0,
                "noise above 0",
            ),
        ),
        noise_key="strategy.logit-noise",
        page="docs/fedmd.md",
    ),
)
