"""The forgetting methods by name, and what each of them needs, serves and promises."""

from unlearning.methods import distill, retrain, subtract
from unlearning.methods.base import ClientAction, ClientAnswer, ClientTask, ForgetJob, Method, Needs, Outcome

METHODS: dict[str, Method] = {m.name: m for m in (subtract.METHOD, distill.METHOD, retrain.METHOD)}

__all__ = ["METHODS", "ClientAction", "ClientAnswer", "ClientTask", "ForgetJob", "Method", "Needs", "Outcome"]
