"""The forgetting methods by name, and what each of them needs, serves and promises."""

from unlearning.methods import (
    ascent,
    distill,
    fast_distill,
    fast_fedul,
    federaser,
    fedosd,
    finetune,
    fisher,
    influence,
    l1_sparse,
    negate,
    redistill,
    reprune,
    retrain,
    subtract,
)
from unlearning.methods.base import ClientAction, ClientAnswer, ForgetJob, ForgetWork, Method, Needs, Outcome

_MODULES = (
    subtract,
    fast_fedul,
    distill,
    fast_distill,
    federaser,
    finetune,
    l1_sparse,
    ascent,
    influence,
    fisher,
    fedosd,
    negate,
    redistill,
    reprune,
    retrain,
)

METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _MODULES}

__all__ = ["METHODS", "ClientAction", "ClientAnswer", "ForgetJob", "ForgetWork", "Method", "Needs", "Outcome"]
