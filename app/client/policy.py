"""What a client's own node allows, whatever a server says: the stricter of the two holds, key by key.

The policy is a TOML file on the node's disk with the run config's own keys; ``privacy.policy`` in the node's
config names it. The node's config may hold the same keys itself. If policy and run cannot be joined, the
client answers nothing, and one line names what both say.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator

from app.client.audit_answers import answers_of, stricter_answers, with_answers
from app.config.run_config import RunConfig, read_toml
from app.config.settings import DataSettings
from app.data.identity import own_place
from strategies.core.conditions import shown
from strategies.core.errors import BadInput, SettingsRefused
from strategies.core.kept import kept_within
from strategies.core.settings import Scalar, Settings
from strategies.layers.privacy.settings import PrivacySettings

FILE = "privacy.policy"
"""In the node's config: where its policy lies."""
BUNDLES = "executor.bundles"
"""In the file alone: SHA-256 of the bundles that ``lethe executor`` runs."""
_FIELDS = {
    "privacy.unit": "unit",
    "privacy.epsilon": "epsilon",
    "privacy.delta": "delta",
    "privacy.randomness": "randomness",
    "privacy.secure-aggregation": "secure_aggregation",
    "privacy.ledger": "ledger",
    "audit.answers": "answers",
    BUNDLES: "bundles",
}
_ALLOWED = {
    "unit": "one of example, client-local, client-central",
    "epsilon": "a number >= 0",
    "delta": "a number > 0 and < 1",
    "randomness": "one of secret, seeded",
    "secure_aggregation": "true or false",
    "ledger": "a folder",
    "answers": "one of refuse, aggregate, examples",
    "bundles": "a list of SHA-256 sums, 64 hexadecimal digits each",
}
_OWN_DATA = {"data.path", "data.folder-of-clients"}
"""Keys by which a node names its own examples."""
_KEPT_BYTES = 2**26
"""Of run configs, each joined with a client's policy, that a process keeps."""
_JOINED_BYTES = 2**12
"""What such a config takes besides the sections that it shares with the run's, roughly."""


class Policy(Settings):
    """What a node allows; by default, everything.

    Attributes
    ----------
    unit
        The unit that a run must have; None: any.
    epsilon
        Budget at most; 0 takes no part. None: no bound.
    delta
        δ at most; None: the run config's default if there is a bound on ε, else any.
    randomness
        ``secret`` or ``seeded``; None: secret if a unit or a bound on ε is asked for, else the run's.
    secure_aggregation
        Whether the client answers with masked vectors only; neutral false.
    ledger
        Folder in which spent privacy adds up over runs; empty: the run's.
    answers
        How audits are answered at most (`unlearning.settings.AuditSettings`); None: not at all if the policy
        protects anything, else as the run says.
    bundles
        SHA-256 of the bundles that ``lethe executor`` runs; empty: of any.
    """

    unit: Literal["example", "client-local", "client-central"] | None = None
    epsilon: float | None = Field(default=None, ge=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    randomness: Literal["secret", "seeded"] | None = None
    secure_aggregation: bool = False
    ledger: str = ""
    answers: Literal["refuse", "aggregate", "examples"] | None = None
    bundles: tuple[str, ...] = ()

    @field_validator("bundles", mode="before")
    @classmethod
    def _bundles_are_sums(cls, value: object) -> object:
        entries = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(entry, str) and is_sum(entry) for entry in entries):
            raise ValueError(_ALLOWED["bundles"])
        return tuple(entries)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the policy in a file.

        Raises
        ------
        BadInput
            If it cannot be read, has an unknown key, or a value that is not allowed.
        """
        return cls._from(read_toml(path), str(path))

    @classmethod
    def of(cls, node_config: Mapping[str, Scalar]) -> Self:
        """Return the policy of a node, from its config and the file that this names.

        Raises
        ------
        BadInput
            As for `read`, and if both hold the same key.
        """
        path = of_node(node_config, FILE)
        given = {} if path is None else _in_file(Path(str(path)).expanduser())
        own = {k: v for k in _FIELDS if k != BUNDLES and (v := of_node(node_config, k)) is not None}
        if not given and not own:
            return _OPEN  # type: ignore[return-value]
        for key in own.keys() & given.keys():
            raise SettingsRefused(f"{key}: given in {FILE} and in the node's config; drop one of the two")
        where = "the node's config" if path is None else FILE
        return cls._from(given | {key: _typed(key, value) for key, value in own.items()}, where)

    @classmethod
    def _from(cls, given: Mapping[str, Any], where: str) -> Self:
        if unknown := given.keys() - _FIELDS.keys():
            raise BadInput(f"{where}: unknown key {sorted(unknown)[0]!r}; known keys: {', '.join(_FIELDS)}")
        try:
            return cls.model_validate({_FIELDS[key]: value for key, value in given.items()})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).replace("-", "_")
            key = next(key for key, field in _FIELDS.items() if field == name)
            raise BadInput(f"{where}: {key}: given {shown(given[key])}, allowed {_ALLOWED[name]}") from None

    @property
    def protects(self) -> bool:
        """Whether it asks for any protection."""
        return self.unit is not None or self.epsilon is not None or self.secure_aggregation

    def applied(self, config: RunConfig, client_id: str) -> RunConfig:
        """Return a run config with each key as strict as this node has it.

        Raises
        ------
        BadInput
            If the two cannot be joined: one line that names both.
        """
        privacy = config.privacy
        if self.unit not in {None, privacy.unit}:
            raise _disagree("privacy.unit", self.unit, privacy.unit)
        if self.epsilon is not None and self.unit is None and not privacy.clients_add_noise:
            raise _disagree("privacy.epsilon", self.epsilon, privacy.unit, "privacy.unit = ")
        masked = privacy.secure_aggregation or config.run.workflow == "analytics"
        if self.secure_aggregation and not masked:
            raise _disagree("privacy.secure-aggregation", True, masked)
        stricter = self._stricter(privacy)
        if privacy.unit == "client-central":
            self._check_server_keeps(privacy, client_id, stricter)
        stricter |= {"ledger": self.ledger} if self.ledger else {}
        joined = config.model_copy(update={"privacy": privacy.model_copy(update=stricter)})
        answers = answers_of(joined)
        if self.answers is not None or self.protects:
            answers = stricter_answers(answers, self.answers or "refuse")
        return with_answers(joined, answers)

    def check_place(self, data: DataSettings, node_config: Mapping[str, Scalar]) -> None:
        """Refuse to read a file or folder that a server names, if the policy protects the node's data.

        Raises
        ------
        BadInput
            If the node names no data of its own.
        """
        if not self.protects:
            return
        named = {
            "data.path": data.path or (data.name if own_place(data.name) else ""),
            "data.folder-of-clients": data.folder_of_clients,
            "data.public": data.public if own_place(data.public) else "",
        }
        own = {key for key in named if of_node(node_config, key) is not None}
        if own & _OWN_DATA:  # Then nothing of the run's is read in their place
            own |= _OWN_DATA
        for key, said in named.items():
            if said and key not in own:
                raise BadInput(
                    f"{key}: the run names {said}, but a node with a policy names its files itself; nothing "
                    "is answered"
                )

    def _check_server_keeps(
        self, privacy: PrivacySettings, client_id: str, stricter: Mapping[str, Scalar]
    ) -> None:
        """Refuse bounds that only the server could keep, if it says that it keeps others."""
        if self.epsilon is not None and (said := privacy.budget_of(client_id)) > self.epsilon:
            raise _disagree("privacy.epsilon", self.epsilon, said if math.isfinite(said) else "no bound")
        for key, value in stricter.items():
            if (said := getattr(privacy, key)) != value:
                raise _disagree(f"privacy.{key}", value, said)

    def _stricter(self, privacy: PrivacySettings) -> dict[str, Any]:
        """Return δ and randomness, by field, as strict as the two together have them."""
        if not privacy.on:
            return {}
        own_delta = PrivacySettings().delta if self.delta is None and self.epsilon is not None else self.delta
        found: dict[str, Any] = {} if own_delta is None else {"delta": min(privacy.delta, own_delta)}
        asks = self.unit is not None or self.epsilon is not None
        if (self.randomness or ("secret" if asks else "seeded")) == "secret":
            found["randomness"] = "secret"
        return found


_OPEN = Policy()
"""Of a node that has said nothing."""


def is_sum(text: str) -> bool:
    """Say whether a text can be a SHA-256 sum, as it is written.

    >>> is_sum("0a" * 32), is_sum("0A" * 32)
    (True, False)
    """
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def of_node(node_config: Mapping[str, Scalar], key: str) -> Scalar | None:
    """Return a setting of a node's own config; Flower's own config has no dots in its keys."""
    return node_config.get(key, node_config.get(key.replace(".", "-")))


def _in_file(path: Path) -> dict[str, Any]:
    """Return what a policy file says; what is wrong with it is said without its place on the node."""
    try:
        return read_toml(path)
    except BadInput as error:
        raise SettingsRefused(str(error).replace(str(path), FILE)) from None


def _typed(key: str, value: Scalar) -> Scalar:
    """Return a value of the node's config as the policy file has it; there, numbers and truth may be text."""
    if not isinstance(value, str):
        return value
    if _FIELDS[key] == "secure_aggregation":
        return {"true": True, "false": False}.get(value, value)
    if _FIELDS[key] in {"epsilon", "delta"}:
        try:
            return float(value)
        except ValueError:
            return value
    return value


@kept_within(_KEPT_BYTES, lambda joined: _JOINED_BYTES)
def agreed(policy: Policy, config: RunConfig, client_id: str) -> RunConfig:
    """Return `Policy.applied`, worked out once per process."""
    return policy.applied(config, client_id)


def _disagree(key: str, own: Scalar | None, said: Scalar, of_run: str = "") -> BadInput:
    name = key.replace("_", "-")
    return SettingsRefused(
        f"{name}: this node's policy says {shown(own)}, the run {of_run}{shown(said)}; nothing is answered"
    )
