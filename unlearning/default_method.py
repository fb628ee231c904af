"""The method that serves a request for which none is named: the best that can.

Best is what an attack on single examples can tell least from retraining, at a fifteenth of its time or less,
where the client was honest, had wrong labels, or was poisoned (docs/evidence.md). If none of these can work,
it is retraining, which is exact: of a pruned run with its mask chosen anew, if the mask had seen the data.
Where groups of clients were trained apart, retraining is that of one group, and comes first.
"""

from collections.abc import Sequence

from unlearning.request import ForgetRequest
from unlearning.requirements import can_serve, check_request
from unlearning.run import TrainedRun
from unlearning.settings import AUTO, ForgetSettings

PREFERRED = ("leave-out", "fast-distill", "distill", "redistill", "reprune", "retrain")
"""Methods, the best first."""
_LEAVES_BACKDOORS = "leave-out"
_AGAINST_POISON = ("fast-distill", "distill", "federaser")
"""Methods after which nothing was left of a backdoor, the fastest first (docs/evidence.md)."""


def against_poison(run: TrainedRun, request: ForgetRequest, settings: ForgetSettings) -> str:
    """Return the method for a client that may have been poisoned: the default, unless that is `leave-out`.

    The others' updates do not pull a backdoor back, as they would a deviation that their data contradict, so
    that more of it is left than the estimate of `leave-out` says.
    """
    default = default_method(run, request, settings)
    if default != _LEAVES_BACKDOORS:
        return default
    return _first_able(_AGAINST_POISON, run, request, settings)


def with_method(run: TrainedRun, request: ForgetRequest, settings: ForgetSettings) -> ForgetSettings:
    """Return the section ``forget`` with a method named; unchanged if it names one.

    BadInput if not even retraining can serve the request.
    """
    if settings.method != AUTO:
        return settings
    chosen = default_method(run, request, settings)
    check_request(run, request, chosen, settings)
    return settings.model_copy(update={"method": chosen})


def default_method(run: TrainedRun, request: ForgetRequest, settings: ForgetSettings) -> str:
    """Return the method that serves a request for which none is named, whether it can or not."""
    return _first_able(PREFERRED[:-1] if run.plan.isolation == 1 else (), run, request, settings)


def _first_able(
    names: Sequence[str], run: TrainedRun, request: ForgetRequest, settings: ForgetSettings
) -> str:
    able = (name for name in names if can_serve(run, request, name, settings))
    return next(able, PREFERRED[-1])
