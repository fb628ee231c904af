"""The rules of ``run.keep`` and ``run.stop``: a round is judged on examples that no report is about."""

from collections.abc import Mapping

from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar


def check_judged(flat: Mapping[str, Scalar]) -> None:
    """Refuse a choice among rounds without data to choose by, and a share that nobody could measure on.

    Raises
    ------
    BadInput
        Naming the key, what was given and what it needs.
    """
    share = flat["data.validation-share"]
    for key, neutral in (("run.keep", "last"), ("run.stop", 0)):
        if flat[key] != neutral and not share:
            raise BadInput(
                f"{key}: given {shown(flat[key])}, but data.validation-share is 0: rounds must be judged on "
                "examples that no report is about; allowed with a share above 0 of the server's test data"
            )
    if flat["run.keep-by"] and flat["run.keep"] == "last" and not flat["run.stop"]:
        raise BadInput(
            f"run.keep-by: given {shown(flat['run.keep-by'])}, which has an effect only with run.keep = "
            '"best" or run.stop above 0'
        )
    if share and flat["model.batch-norm"] == "local":
        raise BadInput(
            f'data.validation-share: given {shown(share)}, but with model.batch-norm = "local" the server '
            "has no whole model to judge; allowed 0"
        )
