"""The rules of ``model.batch-norm``: what it cannot be combined with."""

from collections.abc import Mapping

from strategies.core.conditions import lacks_public_data, shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.registry import traits_of


def check_batch_norm(flat: Mapping[str, Scalar]) -> None:
    """Refuse a policy that the rest of the config cannot serve.

    Raises
    ------
    BadInput
        Naming the key, what was given and what it contradicts.
    """
    policy = flat["model.batch-norm"]
    if policy in {"local", "recalibrate"} and (reason := _private(flat) or _server_side(flat)):
        raise BadInput(f'model.batch-norm: given {shown(policy)}, but {reason}; "group" can be')
    if policy == "local" and (reason := _not_local(flat)):
        raise BadInput(f"model.batch-norm: given {shown(policy)}, but {reason}")
    if policy == "recalibrate" and (reason := _not_recalibrated(flat)):
        raise BadInput(f"model.batch-norm: given {shown(policy)}, but {reason}")


def _private(flat: Mapping[str, Scalar]) -> str:
    if flat["privacy.unit"] != "example":
        return ""
    return 'layers that normalise over the batch cannot be trained with privacy.unit = "example"'


def _server_side(flat: Mapping[str, Scalar]) -> str:
    name = str(flat["strategy.name"])
    return f"{name} runs clients' models on the server" if traits_of(name).public_data else ""


def _not_local(flat: Mapping[str, Scalar]) -> str:
    name = str(flat["strategy.name"])
    if not traits_of(name).local_steps:
        return f"the clients of {name} take no local steps that would train the layers"
    if flat["forget.prune"] != "none":
        return f"forget.prune is {shown(flat['forget.prune'])}, and the server has no whole model to prune"
    return ""


def _not_recalibrated(flat: Mapping[str, Scalar]) -> str:
    name = str(flat["strategy.name"])
    traits = traits_of(name)
    if lacks_public_data(flat):
        return "data.public is 0, and the server sets the statistics from its public data"
    if not traits.averages or traits.personal_models:
        return f"with {name} clients use models that the server does not set the statistics of"
    return ""
