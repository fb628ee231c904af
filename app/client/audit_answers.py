"""How clients answer audits: as run, message and node say; by default only if the run protects nobody."""

from app.config.run_config import RunConfig
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from unlearning.settings import AuditAnswers

_STRICTEST_FIRST: tuple[AuditAnswers, ...] = ("refuse", "aggregate", "examples")


def is_protected(config: RunConfig) -> bool:
    """Whether a run promises its clients anything that exact answers would break."""
    privacy = config.privacy
    return privacy.on or privacy.hides_updates


def answers_of(config: RunConfig) -> AuditAnswers:
    """Return how clients answer the audits of a run; with ``auto``, clients of a protected run do not."""
    if config.audit.answers != "auto":
        return config.audit.answers
    return "refuse" if is_protected(config) else "examples"


def check_answers(config: RunConfig) -> None:
    """Refuse, before any work, an audit that the clients of a run do not answer.

    Raises
    ------
    BadInput
        Naming what the run promises them.
    """
    if answers_of(config) != "refuse":
        return
    privacy, given = config.privacy, shown(config.audit.answers)
    if not is_protected(config):
        raise BadInput(f'audit.answers: given {given}; to measure, allowed are "aggregate", "examples"')

    promised = f"privacy.unit = {shown(privacy.unit)}"
    if not privacy.on:
        masked, kind = privacy.secure_aggregation, shown(privacy.encryption)
        promised = "privacy.secure-aggregation = true" if masked else f"privacy.encryption = {kind}"
    raise BadInput(
        f"audit.answers: given {given}, but clients of a run with {promised} tell nothing exact; allowed "
        '"aggregate" (sums over a client\'s examples) or "examples", which protect nothing'
    )


def with_answers(config: RunConfig, answers: AuditAnswers) -> RunConfig:
    """Return a run config that says how audits are answered."""
    return config.model_copy(update={"audit": config.audit.model_copy(update={"answers": answers})})


def stricter_answers(first: AuditAnswers, second: AuditAnswers) -> AuditAnswers:
    """Return the one of two ways to answer that tells less; neither may be ``auto``."""
    return min(first, second, key=_STRICTEST_FIRST.index)
