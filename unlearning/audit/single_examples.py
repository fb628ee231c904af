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
    area, before, retrained
        RMIA's area under the curve of the forgotten against unseen examples, under this model, the one before
        forgetting, and the retrained one; ½ is guessing. None where it could not be tried. Where the two
        kinds of examples differ, as with a client whose classes are not those of the test data, the retrained
        model's is not ½ either, and is what the others are compared with.
    told_apart, told_apart_retrained
        Balanced accuracy in percent of telling forgotten, retained and unseen examples apart, from the pair
        (before, this model) and from (before, retrained); guessing gives 33.3.
    """

    references: int
    area: float | None
    before: float | None
    retrained: float | None
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
    if not _can_be_tried(after):
        return None
    area, at_first, at_best = (
        _area(model, references) if task.labelled and references else None
        for model in (after, before, retrained)
    )
    return SingleExamples(
        len(references),
        area,
        at_first,
        at_best,
        told_apart(_classes(before), _classes(after), seed),
        told_apart(_classes(before), _classes(retrained), seed),
    )


def rmia_areas(
    models: Mapping[str, Margins | None], others: Sequence[str], task: Task
) -> dict[str, float | None]:
    """Return RMIA's area under the curve of the forgotten against unseen examples, by model.

    Parameters
    ----------
    models
        Margins by model.
    others
        Names of the retrainings with other seeds, which are the references; of its own area, a reference is
        none.
    task
        RMIA reads probabilities of a label, which only classification's margins are.

    Returns
    -------
    dict
        None where there is no reference, or the models cannot be compared (see `attack_single_examples`).
    """
    known = {name: each for name, each in models.items() if each is not None}
    whole = task.labelled and len(known) == len(models) and same_examples(list(known.values()))
    found: dict[str, float | None] = dict.fromkeys(models)
    for name, model in known.items() if whole else ():
        references = [known[other] for other in others if other != name]
        if references and _can_be_tried(model):
            found[name] = _area(model, references)
    return found


def _can_be_tried(model: Margins) -> bool:
    return len(model.all_forgotten) > 0 and len(model.unseen) >= LEAST_UNSEEN


def _area(model: Margins, references: Sequence[Margins]) -> float:
    """Return the area of D_f against half of the test data; the other half is the population."""
    all_models = (model, *references)
    judged = [_probabilities(np.concatenate([m.all_forgotten, m.unseen[::2]])) for m in all_models]
    population = [_probabilities(each.unseen[1::2]) for each in all_models]
    scores = rmia.scores(judged[0], np.stack(judged[1:]), population[0], np.stack(population[1:]))
    count = len(model.all_forgotten)
    return auc(scores[:count], scores[count:])


def _probabilities(margins: Scores) -> Scores:
    """Return p with margin log p − log(1 − p)."""
    found: Scores = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return found


def _classes(margins: Margins) -> tuple[Scores, Scores, Scores]:
    return margins.all_forgotten, margins.retained, margins.unseen
