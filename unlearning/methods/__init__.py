"""The forgetting methods by name, and what each of them needs, serves and promises."""

from unlearning.methods.base import ClientAction, ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.registry import lookup, names
from unlearning.traits.base import Needs

METHODS: dict[str, Method] = {name: lookup(name) for name in names()}

__all__ = ["METHODS", "ClientAction", "ClientAnswer", "ForgetJob", "ForgetWork", "Method", "Needs", "Outcome"]
