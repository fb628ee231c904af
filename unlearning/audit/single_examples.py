"""Attacks on single examples that need no shadow models, only the retrainings that an audit makes anyway."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from strategies.task import Task
from unlearning.audit import rmia
from unlearning.audit.margins import Margins, same_examples
from unlearning.audit.roc import Scores, auc
from unlearning.audit.three_classes import told_apart

LEAST_UNSEEN = 20


@dataclass(frozen=True)
class SingleExamples:
    """What these attacks found of one model.

    Parameters
    ----------
    references
        How many retrainings with other seeds RMIA had as references.
    area, before, floor
        RMIA's area under the curve of the forgotten examples' scores under this model, under the model before
        forgetting, and under a further retraining, each against their scores under the retrained model: ½
        where the two cannot be told apart. None where it could not be tried; the floor needs two retrainings
        with other seeds.
    told_apart, told_apart_retrained
        Balanced accuracy in percent of telling forgotten, retained and unseen examples apart, from the pair
        (before, this model) and from (before, retrained); guessing gives 33.3.
    """

    references: int
    area: float | None
    before: float | None
    floor: float | None
    told_apart: float | None
    told_apart_retrained: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a mapping that `json` can write."""
        return asdict(self)


def attack_single_examples(
    models: Mapping[str, Margins | None],
    names: tuple[str, str, str],
    others: Sequence[str],
    task: Task,
    seed: int,
) -> SingleExamples | None:
    """Attack one model by RMIA and by the pair of models.

    Parameters
    ----------
    models
        Margins by model.
    names
        Of the models before and after forgetting, and retrained.
    others
        Names of the retrainings with other seeds.
    task
        RMIA reads probabilities of a label, which only classification's margins are.
    seed
        Draws the folds of the attack on the pair.

    Returns
    -------
    SingleExamples or None
        None where clients sent sums only, a client did not answer about one of the models, or there is no
        test data.
    """
    known = [models[name] for name in (*names, *others)]
    margins = [each for each in known if each is not None]
    if len(margins) != len(known) or not same_examples(margins):
        return None
    before, after, retrained, *references = margins
    if not len(after.all_forgotten) or len(after.unseen) < LEAST_UNSEEN:
        return None
    area = floor = at_first = None
    if task.labelled and references:
        area = _area(after, retrained, references)
        at_first = _area(before, retrained, references)
        if len(references) > 1:
            floor = _area(references[0], retrained, references[1:])
    return SingleExamples(
        len(references),
        area,
        at_first,
        floor,
        told_apart(_classes(before), _classes(after), seed),
        told_apart(_classes(before), _classes(retrained), seed),
    )


def _area(model: Margins, retrained: Margins, references: Sequence[Margins]) -> float:
    """Return the area of D_f's scores under a model against those under the retrained one."""
    forgotten = np.stack([_probabilities(each.all_forgotten) for each in references])
    population = np.stack([_probabilities(each.unseen) for each in references])

    def scores(of: Margins) -> Scores:
        return rmia.scores(_probabilities(of.all_forgotten), forgotten, _probabilities(of.unseen), population)

    return auc(scores(model), scores(retrained))


def _probabilities(margins: Scores) -> Scores:
    """Return p with margin log p − log(1 − p)."""
    found: Scores = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return found


def _classes(margins: Margins) -> tuple[Scores, Scores, Scores]:
    return margins.all_forgotten, margins.retained, margins.unseen
