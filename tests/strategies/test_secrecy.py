"""One private step of each kind where no generator may be seeded: nothing secret comes from one."""

import secrets
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from strategies import fedavg
from strategies.analytics.asking import Sharing, ask
from strategies.analytics.settings import AnalyticsSettings
from strategies.analytics.statistics import Question
from strategies.core.secret_random import Randomness
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.fedmd.client import answer_query
from strategies.layers.privacy.accounts import Accounts
from strategies.layers.privacy.central import CentralPrivacy
from strategies.layers.privacy.client import ClientPrivacy, train_privately
from strategies.layers.privacy.scoring import PrivateScorer, Scoring
from strategies.layers.privacy.settings import PrivacySettings, Unit
from strategies.models.neurons import hidden_groups
from strategies.server.settings import SelectionSettings
from tests.strategies.analytics.test_asking import CLASSES, cohort_of
from tests.strategies.fedmd.test_client import member, query
from tests.strategies.layers.privacy.test_client import job
from tests.strategies.layers.privacy.test_scoring import data, net

Step = Callable[[], object]


class Unseedable(torch.Generator):
    """A generator that takes no seed."""

    def manual_seed(self, seed: int) -> torch.Generator:
        raise AssertionError(f"a generator was seeded with {seed}")


@pytest.fixture
def unseedable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what forbids all seeds, and all floating-point draws of generators, from then on."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("drawn from a generator")

    def forbid() -> None:
        monkeypatch.setattr(torch, "Generator", Unseedable)
        for name in ("manual_seed", "rand", "randn", "normal", "randn_like", "rand_like"):
            monkeypatch.setattr(torch, name, refuse)
        monkeypatch.setattr(np.random, "default_rng", refuse)
        monkeypatch.setattr(secrets, "randbits", refuse)

    return forbid


def on_client(unit: Unit) -> Step:
    settings = PrivacySettings(unit=unit, epsilon=4.0, accountant="rdp", delta=1e-3)
    work, client = job(), ClientPrivacy(settings, 4.0, 3, state=RecordDict())
    return lambda: train_privately(fedavg.train_client, work, client)


def on_server(**changes: object) -> Step:
    settings = PrivacySettings(unit="client-central", noise_multiplier=1.0).model_copy(update=changes)
    privacy = CentralPrivacy(settings, SelectionSettings(fraction=0.5), 3, 0, Accounts())

    def step() -> None:
        privacy.select([str(i) for i in range(8)], 1)
        privacy.released(torch.zeros(10), 1)

    return step


def by_scores() -> Step:
    model, examples, generator = net(), data(), torch_generator(0)
    scorer = PrivateScorer(Scoring(2.0, 0.1), True, Randomness())
    return lambda: scorer(model, hidden_groups(model), examples, generator)


def of_logits() -> Step:
    who = member(logit_clip=0.5, logit_noise=2.0)
    model = who.work(query()).build_model()  # Its initial weights and transfer learning are no secret
    work = replace(who.work(query()), build_model=lambda: model)
    return lambda: answer_query(work)


def of_statistics() -> Step:
    settings = AnalyticsSettings(epsilon=1.0)
    cohort = cohort_of(3, settings)
    return lambda: ask(cohort, Question(settings, CLASSES), Sharing(1.0))


def of_decryption() -> Step:
    from strategies.layers.encryption.ckks import Secret, new_secret

    secret = Secret(new_secret())
    content = secret.encrypt(torch.zeros(3))
    return lambda: secret.decrypt(content, 3)


STEPS: dict[str, Callable[[], Step]] = {
    "example": lambda: on_client("example"),
    "client-local": lambda: on_client("client-local"),
    "client-central, fixed": on_server,
    "client-central, poisson": lambda: on_server(client_sampling="poisson"),
    "private scores": by_scores,
    "fedmd": of_logits,
    "analytics": of_statistics,
    "ckks": of_decryption,
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_private_step_seeds_no_generator(kind: str, unseedable: Callable[[], None]) -> None:
    step = STEPS[kind]()
    step()  # Loads what is loaded on first use
    unseedable()
    step()


def test_every_unit_is_among_them() -> None:
    units = {unit for unit in Unit.__args__ if unit != "none"}  # type: ignore[attr-defined]
    assert units == {unit for unit in units if any(kind.startswith(unit) for kind in STEPS)}


@pytest.mark.parametrize("draw", [torch_generator, numpy_generator])
def test_a_seed_would_be_noticed(draw: Callable[[int], object], unseedable: Callable[[], None]) -> None:
    unseedable()
    with pytest.raises(AssertionError, match="generator"):
        draw(0)
