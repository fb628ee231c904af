"""The run config that a server asks a client to work by: that of the app, and what a message brings.

A message cannot weaken what the app was started with. If one of two values is plainly stricter, it holds; if
neither is, and the key protected the client when the app was started, the client answers nothing.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from app.client.audit_answers import answers_of, stricter_answers, with_answers
from app.config.run_config import RunConfig
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.layers.privacy.settings import PrivacySettings
from strategies.registry import all_traits

_NOISE = (
    "privacy.unit privacy.noise-multiplier privacy.clip-norm privacy.accountant privacy.budgets "
    "privacy.client-sampling privacy.ledger"
)
_FIXED: tuple[tuple[str, Callable[[RunConfig], bool]], ...] = (
    (_NOISE, lambda config: config.privacy.on),
    ("privacy.threshold privacy.max-examples", lambda config: config.privacy.secure_aggregation),
    ("privacy.encryption privacy.encryption-key", lambda config: config.privacy.encryption != "none"),
    (
        "run.workflow analytics.epsilon analytics.min-clients",
        lambda config: (
            config.run.workflow == "analytics"
            or config.analytics.enabled
            or config.task.scale_from == "federated"
        ),
    ),
)
"""Keys that a message must leave as the app was started, where the app was started so that they protect."""


def _not_weaker(started: RunConfig, brought: RunConfig) -> RunConfig:
    """Return the config of a message, with nothing weaker than in the config of the app."""
    before, after = started.to_flat(), brought.to_flat()
    own = [condition for traits in all_traits() for condition in traits.protecting]
    fixed = [key for keys, protects in _FIXED if protects(started) for key in keys.split()]
    for key in (*fixed, *(key for each in own if each.holds(before[each.on]) for key in each.keys)):
        if after[key] != before[key]:
            raise BadInput(
                f"{key}: a message says {shown(after[key])}, but this client was started for a run with "
                f"{shown(before[key])}; nothing is answered"
            )
    merged = brought.privacy.model_copy(
        update=_stricter_privacy(started.privacy, brought.privacy) if started.privacy.on else {}
    )
    masks = started.privacy.secure_aggregation or brought.privacy.secure_aggregation
    merged = merged.model_copy(update={"secure_aggregation": masks})
    config = brought.model_copy(update={"privacy": merged})
    first = answers_of(with_answers(config, started.audit.answers))
    return with_answers(config, stricter_answers(first, answers_of(config)))


def _stricter_privacy(first: PrivacySettings, second: PrivacySettings) -> dict[str, Any]:
    budgets = [epsilon for epsilon in (first.epsilon, second.epsilon) if epsilon > 0]
    return {
        "epsilon": min(budgets, default=0.0),
        "delta": min(first.delta, second.delta),
        "randomness": "secret" if "secret" in {first.randomness, second.randomness} else "seeded",
    }


@lru_cache(maxsize=16)
def parsed_config(items: tuple[tuple[str, Scalar], ...]) -> RunConfig:
    """Return the run config of a set of flat items, parsed once per process."""
    return RunConfig.from_flat(dict(items))


class _Started:
    """The config that the app was started with: the same in all messages, so it is compared, not hashed."""

    def __init__(self) -> None:
        self._items: Mapping[str, Scalar] = {}
        self._config = RunConfig()

    def parsed(self, run_config: Mapping[str, Scalar]) -> RunConfig:
        """Return the config with these items."""
        if not self._items or self._items != run_config:
            self._config = parsed_config(tuple(sorted(run_config.items())))
            self._items = dict(run_config)
        return self._config


_started = _Started()


def config_from_server(run_config: Mapping[str, Scalar], brought: Mapping[str, Scalar]) -> RunConfig:
    """Return the run config that a server asks a client to work by.

    `run_config` is what the app was started with; `brought` comes with the message, stands above it, and may
    be empty.

    Raises
    ------
    BadInput
        If one of them is damaged, or the message would weaken what the app was started with.
    """
    config = _started.parsed(run_config)
    if not brought:
        return config
    return _not_weaker(config, parsed_config(tuple(sorted({**run_config, **brought}.items()))))
