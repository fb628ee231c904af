"""Whether the loss of a run is convex in the weights, and its clients took plain gradient steps on it.

A bound on how far two trainings come apart rests on both: a step of gradient descent brings two models no
further apart only if the loss is convex and the step short enough. Momentum, clipped gradients and optimisers
that rescale them are no such steps; networks of several layers have no such loss.
"""

from strategies.registry import PLAIN
from unlearning.central.certified import only_linear
from unlearning.run import TrainedRun


def why_no_certificate(run: TrainedRun) -> str:
    """Return why nothing can be certified of a run, in words; empty: it can."""
    return _not_convex(run) or _not_plain(run)


def _not_plain(run: TrainedRun) -> str:
    """Say what clients or the server did besides plain steps and their mean; empty: nothing."""
    train, plan = run.train, run.plan
    name, chosen = plan.strategy.name, plan.selection.method
    found = {
        f'strategy.name = "{name}" does more than average plain steps': name != PLAIN,
        "its groups were trained apart (train.isolation)": plan.isolation > 1,
        f'train.optimizer = "{train.optimizer}" takes no plain gradient steps': train.optimizer != "sgd",
        f"steps with train.momentum = {train.momentum:g} may part two models": train.momentum > 0,
        "clipped gradients (train.max-gradient-norm) are of no convex loss": train.max_gradient_norm > 0,
        f'by selection.method = "{chosen}" data decide who takes part': chosen != "uniform",
        "what travelled was compressed (compression.codec)": plan.compression.on,
        f'steps in run.precision = "{run.precision}" are rounded': run.precision != "float32",
        "updates were rounded in the log (log.dtype)": run.log is not None and run.log.dtype != "float32",
        "its mask was chosen by looking at a model": run.mask is not None,
    }
    return next((reason for reason, holds in found.items() if holds), "")


def _not_convex(run: TrainedRun) -> str:
    model = run.build_model()
    try:
        outputs = only_linear(model).out_features
    except ValueError:
        return (
            "the loss is not convex in the weights of this model, of which more than one linear layer trains "
            '(it is in those of model.name = "linear")'
        )
    if run.task.curvature(outputs) is None:
        return f"the loss of this run's task ({run.task.name}) is not known to be convex in the outputs"
    return ""
