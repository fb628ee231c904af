"""The wording of numbers, requests and metrics for people, on the terminal and in the report alike."""

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strategies.runs.documents import rounds_in

MISSING = "–"
"""Stands for a figure that was not measured."""


_FIGURES = {
    "accuracy": "accuracy, %",
    "score": "score, of 100",
    "f1": "macro F1",
    "f1-each": "F1",
    "auroc": "AUROC",
    "exact-match": "all labels right",
    "r2": "R²",
    "rmse": "root mean square residual",
    "mae": "mean absolute residual",
    "iou": "IoU",
    "iou-each": "IoU",
    "pixel-accuracy": "pixels right",
}
_OF_100 = {"accuracy", "score"}


def figure_name(name: str) -> str:
    """Return the name of a task's figure for people.

    >>> figure_name("r2"), figure_name("my-figure")
    ('R²', 'my-figure')
    """
    return _FIGURES.get(name, name)


def figure(name: str, value: float | None) -> str:
    """Return the value of a task's figure.

    >>> figure("accuracy", 93.14), figure("r2", 0.93142), figure("r2", None)
    ('93.1', '0.931', '–')
    """
    return MISSING if value is None else number(value, 1 if name in _OF_100 else 3)


@dataclass(frozen=True)
class Column:
    """A column of the table that compares the models before and after forgetting with the retrained one.

    `key` is the metric's name in ``audit.json``, `short` its abbreviation, `unit` ``%`` or ``s``; `meaning`
    says in a sentence or two what it measures and what is good.
    """

    key: str
    short: str
    title: str
    unit: str
    meaning: str


COLUMNS = (
    Column(
        "test_accuracy",
        "TA",
        "Test accuracy",
        "%",
        "Share of the test images that are classified correctly; when a class is forgotten, without that "
        "class. Good: equal to the retrained model's.",
    ),
    Column(
        "retain_accuracy",
        "RA",
        "Retain accuracy",
        "%",
        "Accuracy on the training data that stays. Good: equal to the retrained model's.",
    ),
    Column(
        "unlearning_accuracy",
        "UA",
        "Unlearning accuracy",
        "%",
        "100 − accuracy on the forgotten data. Good: equal to the retrained model's, not as high as "
        "possible: a model that never saw the data may still classify much of it correctly.",
    ),
    Column(
        "mia_efficacy",
        "MIA",
        "Membership inference",
        "%",
        "Share of the forgotten examples that a membership attacker takes for never seen; ± is its standard "
        "deviation over the attacker's draws. Good: equal to the retrained model's. Says nothing when the "
        "attacker only guesses.",
    ),
    Column(
        "attack_success_rate",
        "ASR",
        "Attack success rate",
        "%",
        "Share of the test images with the backdoor's trigger, those of the target class left out, that are "
        "assigned to the target class. Good: at most one point above the retrained model's.",
    ),
    Column(
        "seconds",
        "seconds",
        "Wall-clock time",
        "s",
        "Time of the training (before), of the forgetting (after) and of the retraining.",
    ),
)

DISPARITY = (
    "Mean distance to the retrained model over UA, RA and TA, and MIA where its attacker is better than "
    "guessing, in percentage points: the headline figure of a method. Good: 0, or no more than the floor, "
    "which is that of a second retraining with another seed. Read it beside that of the model before."
)


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with a true minus sign, or a dash for None.

    >>> number(-1.25), number(None)
    ('−1.2', '–')
    """
    return MISSING if value is None else _minus(f"{value:.{digits}f}")


def gap(value: float | None, digits: int = 1) -> str:
    """Return a difference with its sign, or without one if it rounds to zero.

    >>> gap(1.26), gap(-0.04), gap(-0.04, 2)
    ('+1.3', '0.0', '−0.04')
    """
    if value is None:
        return MISSING
    text = f"{value:+.{digits}f}"
    return _minus(text) if any(figure in text for figure in "123456789") else text[1:]


def seconds(value: float | None) -> str:
    """Return a time with a precision that fits its size.

    >>> seconds(0.034), seconds(1.62), seconds(245.0)
    ('0.03', '1.6', '245')
    """
    if value is None:
        return MISSING
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def private(privacy: Mapping[str, Any]) -> str:
    """Return the privacy that a run's clients have spent, from ``privacy`` in ``summary.json``.

    >>> privacy = {"unit": "example", "delta": 1e-05, "neighbours": "differ by one example"}
    >>> private({**privacy, "clients": {"0": {"epsilon": 1.5}, "1": {"epsilon": 0.75}}})
    'ε = 1.50 at δ = 1e-05 per example: two data sets differ by one example'
    """
    most = most_spent(privacy)
    spent = most if most == _UNBOUNDED else f"ε = {most}"
    return f"{spent} at δ = {privacy['delta']:g} per {privacy['unit']}: two data sets {privacy['neighbours']}"


def most_spent(privacy: Mapping[str, Any]) -> str:
    """Return the ε of the client that has spent most."""
    return epsilon(epsilon_of(privacy))


def epsilon_of(privacy: Mapping[str, Any]) -> float | None:
    """Return the ε of the client that has spent most, as a number; None: there is no bound."""
    spent = [row["epsilon"] for row in privacy["clients"].values()]
    return None if None in spent else max(spent, default=0.0)


def epsilon(value: float | None) -> str:
    """Return an ε, or that there is no bound (None).

    >>> epsilon(2.345), epsilon(None)
    ('2.35', 'no bound')
    """
    return _UNBOUNDED if value is None else number(value, 2)


_UNBOUNDED = "no bound"
_OUTCOMES = {
    "closer": "closer to retraining than doing nothing",
    "within-floor": "as far from retraining as doing nothing, up to chance",
    "worse": "further from retraining than doing nothing",
    "reference": "the reference",
    "unknown": "no verdict",
}
"""Outcome of a verdict -> what it says, in a few words."""
_LARGE_EPSILON = 7.0


def meaning_of(privacy: Mapping[str, Any]) -> str:
    """Return what a run's largest ε means for people: how sure somebody who was undecided can become.

    By Bayes' rule, odds of 1 to 1 become at most e^ε to 1; e^1.5 / (1 + e^1.5) = 81.8 %.

    >>> privacy = {"unit": "example", "delta": 1e-05, "clients": {"0": {"epsilon": 1.5}}}
    >>> meaning_of(privacy)[:73]
    'What that means: someone who gives an even chance that a certain example '
    >>> "at most 81.8 % sure" in meaning_of(privacy)
    True
    """
    spent = [row["epsilon"] for row in privacy["clients"].values()]
    subject = f"a certain {privacy['unit']} was in the training data"
    if privacy["unit"] == "client":
        subject = "a certain client took part"
    if None in spent:
        return f"What that means: nothing is promised; the model may give away whether {subject}."
    largest = max(spent, default=0.0)
    sure = f"at most {number(100.0 / (1.0 + math.exp(-largest)))} %"
    if largest > _LARGE_EPSILON:
        sure = "more than 99.9 %"
    weak = ", which is hardly any protection" if largest > _LARGE_EPSILON else ""
    return (
        f"What that means: someone who gives an even chance that {subject} can become {sure} sure of it from "
        f"what was released{weak}, except with a probability of about δ = {privacy['delta']:g}."
    )


def clock(value: float) -> str:
    """Return a time as a clock shows it.

    >>> clock(7.4), clock(83), clock(4000)
    ('0:07', '1:23', '1:06:40')
    """
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def spread(values: Mapping[str, Any] | None, digits: int = 1) -> str:
    """Return a mean with its standard deviation, if there is one; values in two groups one by one, sorted.

    >>> spread({"mean": 96.25, "std": 0.5}), spread({"mean": -1.0, "std": None}), spread(None)
    ('96.2 ± 0.5', '−1.0', '–')
    >>> spread({"mean": None, "std": None, "listed": True, "values": [[87.0, 7.0], [85.5]]})
    '7.0, 85.5, 87.0'
    """
    if values and values.get("listed"):
        return ", ".join(number(value, digits) for value in sorted(v for of in values["values"] for v in of))
    mean, std = (values or {}).get("mean"), (values or {}).get("std")
    return number(mean, digits) + ("" if mean is None or std is None else f" ± {number(std, digits)}")


def cell(column: Column, figures: Mapping[str, Any]) -> str:
    """Return the text of a table's cell: a figure of a model, with its spread if it has one.

    >>> cell(COLUMNS[3], {"mia_efficacy": 79.06, "mia_efficacy_std": 1.2}), cell(COLUMNS[0], {})
    ('79.1 ± 1.2', '–')
    """
    value = figures.get(column.key)
    if column.unit == "s":
        return seconds(value)
    return spread({"mean": value, "std": figures.get(f"{column.key}_std")})


def headline(audit: Mapping[str, Any]) -> float | None:
    """Return the disparity that counts in an ``audit.json``: without MIA if its attacker only guesses.

    An audit from before there were verdicts has one disparity.

    >>> headline({"disparity": 1.2, "verdict": {"disparity": 0.1}}), headline({"disparity": 1.2})
    (0.1, 1.2)
    """
    judged = audit.get("verdict") or {}
    found: float | None = judged.get("disparity")
    return audit.get("disparity") if found is None else found


def verdict(audit: Mapping[str, Any]) -> str:
    """Return an audit's verdict in words; empty for one from before there were verdicts.

    >>> verdict({"verdict": {"text": "the forgetting left the model further"}}), verdict({})
    ('the forgetting left the model further', '')
    """
    return str((audit.get("verdict") or {}).get("text", ""))


_EXPOSED = 3
_AREAS = {"area": "after", "before": "before", "retrained": "retrained"}


def attacks(audit: Mapping[str, Any]) -> list[str]:
    """Return in sentences what attacks on single examples found; none where they could not be tried.

    >>> attacks({"single-examples": {"area": 0.51, "before": 0.7, "retrained": 0.48, "references": 1}})
    ['single examples (RMIA, area under the curve, guessing 0.5): 0.51 after, 0.70 before, 0.48 retrained']
    >>> attacks({"relearned": {"after": 0, "retrained": None, "most": 5}})
    ['relearning (rounds until the forgotten is known as before): 0 after, more than 5 retrained']
    >>> attacks({"shadows": {"text": "passes", "most-exposed": []}})
    ['shadow models: passes']
    """
    found = []
    single, shadows = audit.get("single-examples") or {}, audit.get("shadows") or {}
    if single.get("area") is not None:
        areas = (f"{single[key]:.2f} {word}" for key, word in _AREAS.items())
        found.append(f"single examples (RMIA, area under the curve, guessing 0.5): {', '.join(areas)}")
    if relearned := audit.get("relearned"):
        rounds = {
            key: f"more than {relearned['most']}" if relearned[key] is None else relearned[key]
            for key in ("after", "retrained")
        }
        found.append(
            f"relearning (rounds until the forgotten is known as before): {rounds['after']} after, "
            f"{rounds['retrained']} retrained"
        )
    if shadows:
        found.append(f"shadow models: {shadows['text']}")
        exposed = [f"{each['position']} of client {each['client']}" for each in shadows["most-exposed"]]
        if exposed:
            found.append(f"most exposed examples: {', '.join(exposed[:_EXPOSED])}")
    return [*found, *rounded(audit)]


def rounded(audit: Mapping[str, Any]) -> list[str]:
    """Return in a sentence for each number of bits whether the forgotten comes back in rounded weights.

    >>> unrounded = {"after": {"unlearning_accuracy": 80.0}, "retrain": {"unlearning_accuracy": 81.0}}
    >>> at_4 = {key: {"unlearning_accuracy": value} for key, value in (("after", 40.0), ("retrain", 79.0))}
    >>> rounded({**unrounded, "rounded": {"4": at_4}})
    ['weights rounded to 4 bits: UA 40.0 after (80.0 unrounded), 79.0 retrained (81.0 unrounded)']
    """
    key = "unlearning_accuracy"
    return [
        f"weights rounded to {bits} bits: UA "
        + ", ".join(
            f"{number(found[name][key])} {word} ({number(audit[name][key])} unrounded)"
            for name, word in (("after", "after"), ("retrain", "retrained"))
        )
        for bits, found in (audit.get("rounded") or {}).items()
    ]


APART = ("unlearning_accuracy", "mia_efficacy", "attack_success_rate")
"""The figures that stand apart for each kind of the forgotten examples."""


def apart(audit: Mapping[str, Any], models: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return a row for each kind of the forgotten examples and each model: how many, UA, MIA and ASR.

    `models` has the models' names by their key in ``audit.json``.

    >>> part = {"unlearning_accuracy": 75.0, "mia_efficacy": None, "num_forget": 20}
    >>> apart({"after": {"apart": {"hard": part}}}, {"after": "after"})
    [('hard, after', '20', '75.0', '–', '–')]
    """
    found = {key: (audit.get(key) or {}).get("apart") or {} for key in models}
    kinds = dict.fromkeys(kind for parts in found.values() for kind in parts)
    return [
        (
            f"{kind}, {name}",
            f"{found[key][kind].get('num_forget', 0):,}",
            *(number(found[key][kind].get(figure)) for figure in APART),
        )
        for kind in kinds
        for key, name in models.items()
        if kind in found[key]
    ]


def outcome(audit: Mapping[str, Any]) -> str:
    """Return an audit's verdict in a few words; empty for one from before there were verdicts.

    >>> outcome({"verdict": {"outcome": "worse", "text": "…"}}), outcome({})
    ('further from retraining than doing nothing', '')
    """
    known = str((audit.get("verdict") or {}).get("outcome", ""))
    return _OUTCOMES.get(known, known)


def size(num_bytes: float) -> str:
    """Return a number of bytes in decimal units.

    >>> size(812), size(1_480_000)
    ('812 B', '1.5 MB')
    """
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 999.95:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1000:.1f} TB"


def count(value: int, noun: str) -> str:
    """Return a count with its noun.

    >>> count(1, "client"), count(1200, "example"), count(2, "class")
    ('1 client', '1,200 examples', '2 classes')
    """
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{value:,} {noun if value == 1 else plural}"


def printable(text: str) -> str:
    r"""Return a text on one line, without characters that could steer a terminal or have no picture.

    >>> printable("client \x1b[2J\n3")
    'client ·[2J 3'
    """
    return "".join(" " if c.isspace() else c if c.isprintable() else "·" for c in text)


def wrapped(text: str, width: int) -> str:
    r"""Return a line broken between words for a terminal; what is to be copied whole stays on one line.

    >>> wrapped("note: a sentence that is too long", 20)
    'note: a sentence\n  that is too long'
    >>> wrapped("to forget: lethe forget RUN --client 3", 20)
    'to forget: lethe forget RUN --client 3'
    """
    if len(text) <= width or ("lethe " in text and " --" in text):
        return text
    return textwrap.fill(
        text,
        max(width, 20),
        subsequent_indent="  ",
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def rounds_of(summary: Mapping[str, Any]) -> str:
    """Return how many rounds are in a run's model, and of how many that were trained.

    >>> rounds_of({"rounds": 5, "completed-rounds": 5})
    '5'
    >>> rounds_of({"rounds": 5, "completed-rounds": 2, "judged": {"trained": 5}})
    '2 of 5'
    """
    rounds = rounds_in(summary)
    trained = (summary.get("judged") or {}).get("trained", rounds)
    return str(rounds) if rounds == trained else f"{rounds} of {trained}"


def kept_round(judged: Mapping[str, Any]) -> str:
    """Return which round's model a run has and why, in words; `judged` is what its summary says.

    >>> found = {"keep": "best", "by": "validation-loss", "round": 2, "trained": 5, "best": 2, "value": 0.5}
    >>> kept_round({**found, "validation-examples": 90})
    'round 2 of 5 is kept, the best by validation-loss: 0.50 on 90 examples that no other figure is of'
    """
    if judged["value"] is None:
        return f"round {judged['round']} is kept, the last: {judged['by']} could not be measured"
    value, examples = number(judged["value"], 2), judged["validation-examples"]
    best = f"the best by {judged['by']}: {value} on {examples} examples that no other figure is of"
    if judged["round"] == judged["best"]:
        return f"round {judged['round']} of {judged['trained']} is kept, {best}"
    return f"round {judged['round']} is kept, the last; round {judged['best']} is {best}"


def stopped_early(judged: Mapping[str, Any], planned: int) -> str:
    """Return why a training ended before its last planned round, in words; empty if it did not.

    >>> stopped_early({"by": "validation-loss", "trained": 5, "best": 2}, 20)
    'training ended after round 5 of 20: validation-loss was best in round 2, and not after it (run.stop)'
    >>> stopped_early({"by": "validation-loss", "trained": 20, "best": 2}, 20)
    ''
    """
    if judged["trained"] >= planned:
        return ""
    ended = f"training ended after round {judged['trained']} of {planned}"
    return f"{ended}: {judged['by']} was best in round {judged['best']}, and not after it (run.stop)"


def listed(words: Iterable[str]) -> str:
    """Return words as a list in a sentence.

    >>> listed(["3", "5", "9"])
    '3, 5 and 9'
    """
    *head, last = list(words) or [""]
    return f"{', '.join(head)} and {last}" if head else last


def capital(text: str) -> str:
    """Return a text as the beginning of a sentence.

    >>> capital("client 3")
    'Client 3'
    """
    return text[:1].upper() + text[1:]


def scale(audit: Mapping[str, Any]) -> str:
    """Return in words how far retrainings with other seeds are from retraining; empty if there are none.

    >>> scale({"scale": {"retrain-seed-1": {"disparity": 0.4, "parameter_distance": 10.5}}})
    'the scale, 1 retraining with another seed: disparity 0.4, parameter distance 10.50'
    """
    found = list((audit.get("scale") or {}).values())
    if not found:
        return ""
    counts_mia = (audit.get("verdict") or {}).get("counts_mia", True)
    texts = [
        f"{name} {listed(number(each.get(key), digits) for each in found)}"
        for key, name, digits in (
            ("disparity" if counts_mia else "disparity_without_mia", "disparity", 1),
            ("parameter_distance", "parameter distance", 2),
        )
    ]
    what = f"{count(len(found), 'retraining')} with {'another seed' if len(found) == 1 else 'other seeds'}"
    return f"the scale, {what}: {', '.join(texts)}"


def subject(request: Mapping[str, Any]) -> str:
    """Return the subject of a request, as in ``result.json``, in words.

    >>> subject({"kind": "client", "clients": ["3"]})
    'client 3'
    >>> subject({"kind": "sample", "samples": {"3": [5, 9]}})
    '2 examples of client 3'
    """
    if samples := request.get("samples"):
        return listed(f"{count(len(positions), 'example')} of client {c}" for c, positions in samples.items())
    named = request.get("clients") or request.get("class-names") or request.get("classes") or ()
    names = [str(name) for name in named]
    noun = "client" if request.get("clients") else "class"
    return f"{noun if len(names) == 1 else count(2, noun)[2:]} {listed(names)}"


def purged(log: Mapping[str, Any]) -> str:
    """Return what was purged from a log, as a certificate names it.

    >>> purged({"log": "log", "clients": ["3", "5"], "time": "2026-01-01T00:00:00Z"})
    'clients 3 and 5 purged from log, 2026-01-01T00:00:00Z'
    """
    return f"{subject(log)} purged from {log['log']}, {log['time']}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
