"""Every central method on one model of one data holder, with one setting for all models.

No setting is searched: what a search finds depends on the retrained model, which nobody has who forgets.
Gradient ascent and the influence step end where the held-out data say (`unlearning.central.stopping`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.central import HolderOptions, Split
from strategies.core.examples import TensorExamples
from strategies.task import CLASSIFICATION
from unlearning.central.ascent import ascend_until
from unlearning.central.bad_teacher import BadTeacherSettings, bad_teacher
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.fisher import fisher_forget
from unlearning.central.influence import InfluenceSettings, influence_until
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.masks import Masks
from unlearning.central.neggrad import NegGradSettings, neggrad
from unlearning.central.random_labels import RandomLabelsSettings, random_labels
from unlearning.central.salun import SalUnSettings, salun
from unlearning.central.scrub import ScrubSettings, scrub
from unlearning.central.ssd import ssd
from unlearning.central.stopping import Goal, StepSettings, gone_labels
from unlearning.central.training import SgdSettings
from unlearning.traits.fisher import FisherSettings
from unlearning.traits.ssd import SsdSettings


class ForgettingOptions(HolderOptions):
    """Options of a benchmark of all central methods."""

    weight_decay: float = 1e-4
    """Of training and of all methods that train; with more of it, hard examples are not learnt."""
    forget_epochs: int = 5
    forget_rate: float = 0.05
    """Epochs and step size of all methods that train."""
    contrast_rate: float = 0.01
    """Step size of SCRUB and NegGrad+, which also go up a loss."""
    gamma: float = 5e-4
    """First penalty of l1-sparse."""
    beta: float = 0.99
    """Weight of the retained data of NegGrad+."""
    fisher_alpha: float = 1e-6
    """Variance of the noise of Fisher forgetting where the information is 1."""
    curvature_examples: int = 256
    """Retained examples that influence and Fisher forgetting take the curvature from."""
    step_share: float = 0.004
    max_steps: int = 100
    """Of gradient ascent: length of a step as a share of the parameters' norm, and the most steps."""

    def sgd(self, learning_rate: float | None = None) -> dict[str, float]:
        """Return how the methods that train do; None: by `forget_rate`."""
        return {
            "epochs": self.forget_epochs,
            "learning_rate": learning_rate or self.forget_rate,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True, eq=False)
class Case:
    """One request on one model."""

    model: nn.Module
    """θo."""
    split: Split
    held_out: TensorExamples
    """Neither trained on nor judged by."""
    masks: Masks
    random: nn.Module
    """A model with fresh weights, which knows nothing."""
    num_labels: int
    draw: Callable[[str], torch.Generator]
    """Gives a method's generator."""

    @property
    def gone(self) -> list[int]:
        """The labels that only D_f has."""
        return gone_labels(self.split.forget, self.split.retain)

    @property
    def goal(self) -> Goal:
        """What D_f is to look like."""
        return Goal.of(self.model, self.held_out, self.num_labels, self.gone, CLASSIFICATION)


Contender = Callable[[Case, ForgettingOptions], nn.Module]


def _finetuned(case: Case, options: ForgettingOptions) -> nn.Module:
    settings = FinetuneSettings.model_validate(options.sgd())
    return finetune(case.model, case.split.retain, settings, case.draw("FT"), masks=case.masks)


def _l1_sparse(case: Case, options: ForgettingOptions) -> nn.Module:
    settings = L1SparseSettings.model_validate({**options.sgd(), "gamma": options.gamma})
    return l1_sparse(case.model, case.split.retain, settings, case.draw("FT"), masks=case.masks)


def _ascended(case: Case, options: ForgettingOptions) -> nn.Module:
    steps = StepSettings(step_share=options.step_share, max_steps=options.max_steps)
    return ascend_until(case.model, case.split.forget, case.goal, steps, masks=case.masks).model


def _influenced(case: Case, options: ForgettingOptions) -> nn.Module:
    settings = InfluenceSettings(fisher_examples=options.curvature_examples)
    parts = case.split.retain, case.split.forget
    return influence_until(case.model, parts, case.goal, settings, case.draw("IU"), masks=case.masks).model


def _fisher(case: Case, options: ForgettingOptions) -> nn.Module:
    retain, settings = case.split.retain, FisherSettings(alpha=options.fisher_alpha)
    seen = torch.randperm(len(retain), generator=case.draw("curvature"))[: options.curvature_examples]
    draw = case.draw("FF")
    return fisher_forget(case.model, retain.subset(seen), settings, draw, classes=case.gone, masks=case.masks)


def _scrubbed(case: Case, options: ForgettingOptions) -> nn.Module:
    settings, split = ScrubSettings.model_validate(options.sgd(options.contrast_rate)), case.split
    return scrub(case.model, split.retain, split.forget, settings, case.draw("SCRUB"), masks=case.masks)


def _salun(case: Case, options: ForgettingOptions) -> nn.Module:
    settings, split = SalUnSettings.model_validate(options.sgd()), case.split
    return salun(case.model, split.retain, split.forget, settings, case.draw("RL"), masks=case.masks)


def _dampened(case: Case, options: ForgettingOptions) -> nn.Module:
    return ssd(case.model, case.split.retain, case.split.forget, SsdSettings())


def _neggrad(case: Case, options: ForgettingOptions) -> nn.Module:
    values, split = {**options.sgd(options.contrast_rate), "beta": options.beta}, case.split
    settings = NegGradSettings.model_validate(values)
    return neggrad(case.model, split.retain, split.forget, settings, case.draw("NegGrad+"), masks=case.masks)


def _random_labels(case: Case, options: ForgettingOptions) -> nn.Module:
    settings, split = RandomLabelsSettings.model_validate(options.sgd()), case.split
    return random_labels(case.model, split.retain, split.forget, settings, case.draw("RL"), masks=case.masks)


def _badly_taught(case: Case, options: ForgettingOptions) -> nn.Module:
    settings: SgdSettings = BadTeacherSettings.model_validate(options.sgd())
    teachers, parts = (case.model, case.random), (case.split.retain, case.split.forget)
    return bad_teacher(case.model, teachers, parts, settings, case.draw("BT"), masks=case.masks)


CONTENDERS: Mapping[str, Contender] = {
    "FT": _finetuned,
    "l1-sparse": _l1_sparse,
    "GA": _ascended,
    "IU": _influenced,
    "FF": _fisher,
    "SCRUB": _scrubbed,
    "SalUn": _salun,
    "SSD": _dampened,
    "NegGrad+": _neggrad,
    "random labels": _random_labels,
    "bad teacher": _badly_taught,
}
"""By the name in tables."""
