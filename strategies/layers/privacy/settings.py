"""Settings of differential privacy: the section ``privacy`` of the run config."""

import math
from typing import Literal

from pydantic import Field, field_validator

from strategies.core.settings import Settings, split_pairs

Unit = Literal["none", "example", "client-local", "client-central"]
AccountantName = Literal["prv", "rdp"]
EngineName = Literal["auto", "one-pass", "ghost", "hooks"]


class PrivacySettings(Settings):
    """What is protected, how much of it may be spent, and how.

    Attributes
    ----------
    unit
        What two neighbouring data sets differ in, and who adds the noise: ``example`` (one example of a
        client; noise in every local step), ``client-local`` (all of a client's data; noise on the client, on
        its update) or ``client-central`` (all of a client's data; noise on the server, which is trusted).
        Neutral ``none``: no privacy.
    epsilon
        Budget of each client over the whole run, at least 0; 0 sets no budget.
    delta
        Probability with which epsilon may be passed, in (0, 1); must be below one over the number of units.
    noise_multiplier
        Standard deviation of the noise in clip norms, at least 0; neutral 0: no noise and no guarantee. The
        default −1 solves it from the budget, the rounds and the sampling.
    clip_norm
        Largest Euclidean norm of what one unit contributes, above 0: an example's gradient, or an update.
    accountant
        ``prv`` or ``rdp`` (see `strategies.layers.privacy.accounting`).
    engine
        How the examples' gradients are clipped with ``example``: ``one-pass`` (one backward pass; only
        models whose layers all have a rule for it), ``ghost`` (Opacus' ghost clipping, two passes),
        ``hooks`` (Opacus' gradients of all examples at once) or ``auto`` (one pass, for any model: a layer
        without a rule goes by Opacus' sampler, and one without a sampler by functorch). All give the same
        sum up to rounding.
    budgets
        Budgets of single clients, ``client-id=epsilon`` pairs separated by commas; 0 refuses to take part.
    client_sampling
        ``client-central``: ``fixed`` (as many as ``selection.fraction`` says; counted without amplification)
        or ``poisson`` (each client by itself with probability ``selection.fraction``).
    randomness
        ``secret`` draws noise and samples from a cryptographic stream under a key of the machine's entropy;
        ``seeded`` derives the key from ``run.seed``, so that runs repeat, and protects only against those who
        do not know the seed, which the server does. Also that of noise that an algorithm's clients add by
        themselves.
    ledger
        A client's folder in which what was spent outlasts the run, so that it adds up over runs on the same
        data; neutral empty.
    encryption
        ``ckks``: the server adds encrypted updates and learns their mean alone (see
        `strategies.layers.encryption`). Neutral ``none``.
    encryption_key
        The clients' file with the key that they share and the server must not have.
    secure_aggregation
        Whether the server gets only the sum of the clients' updates (see `strategies.layers.secagg`);
        neutral false.
    threshold
        Share of a round's clients that must stay to the end for the sum to be had, above 2/3 and at most 1;
        of n never fewer than ⌊2n/3⌋ + 1 (see `strategies.layers.secagg.protocol.needed`).
    max_examples
        Examples that a client weighs at most under secure aggregation, at least 1; one with more is refused.
    """

    unit: Unit = "none"
    epsilon: float = Field(default=0.0, ge=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise_multiplier: float = Field(default=-1.0)
    clip_norm: float = Field(default=1.0, gt=0)
    accountant: AccountantName = "prv"
    engine: EngineName = "auto"
    budgets: str = ""
    client_sampling: Literal["fixed", "poisson"] = "fixed"
    randomness: Literal["secret", "seeded"] = "secret"
    ledger: str = ""
    encryption: Literal["none", "ckks"] = "none"
    encryption_key: str = "~/.lethe/keys/ckks.key"
    secure_aggregation: bool = False
    threshold: float = 0.67
    max_examples: int = Field(default=65536, ge=1, le=2**31)

    @property
    def on(self) -> bool:
        """Whether anything is private."""
        return self.unit != "none"

    @property
    def clients_add_noise(self) -> bool:
        """Whether clients add the noise, and count what they spend, themselves."""
        return self.on and self.unit != "client-central"

    @property
    def hides_updates(self) -> bool:
        """Whether the server gets sums of updates only, masked or encrypted."""
        return self.secure_aggregation or self.encryption != "none"

    @property
    def max_weight(self) -> int:
        """What a client weighs at most in a sum; at the client level each weighs the same."""
        return 1 if self.unit.startswith("client") else self.max_examples

    @property
    def client_budgets(self) -> dict[str, float]:
        """``budgets``, parsed: epsilon by client-id."""
        return parse_pairs(self.budgets, "epsilon")

    def budget_of(self, client_id: str, own: float | None = None) -> float:
        """Return a client's budget: the run's for it, and not more than its own node allows.

        Parameters
        ----------
        client_id
            Whose.
        own
            What the client's node is configured with; None: nothing.
        """
        default = self.epsilon or math.inf
        return min(self.client_budgets.get(client_id, default), math.inf if own is None else own)

    @field_validator("noise_multiplier")
    @classmethod
    def _noise_in_range(cls, value: float) -> float:
        if value < 0 and value != -1:
            raise ValueError("a number >= 0, or -1 to solve it from the budget")
        return value

    @field_validator("threshold")
    @classmethod
    def _threshold_in_range(cls, value: float) -> float:
        if not 2 / 3 < value <= 1:
            raise ValueError("a number > 2/3 and <= 1: of n clients at least ⌊2n/3⌋ + 1 must stay")
        return value

    @field_validator("budgets")
    @classmethod
    def _budgets_parse(cls, value: str) -> str:
        parse_pairs(value, "epsilon")
        return value


def parse_pairs(text: str, what: str) -> dict[str, float]:
    """Return the numbers, at least 0, of ``client-id=number`` pairs separated by commas.

    Raises
    ------
    ValueError
        If the text is something else.

    Examples
    --------
    >>> parse_pairs("3=0.5, hospital-a=2", "epsilon")
    {'3': 0.5, 'hospital-a': 2.0}
    """
    numbers = split_pairs(text, what)
    if not all(number >= 0 and math.isfinite(number) for number in numbers.values()):
        raise ValueError(f"'client-id={what}' pairs with every {what} >= 0")
    return numbers
