"""The head of the report: a summary in sentences, warnings, and the properties of the run."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from app.report import wording
from app.report.forgetting_view import sentence
from app.report.headline import headline_of, is_scored
from app.report.reading import RETRAIN, RunRecord
from app.report.wording import MISSING, count, figure, number
from strategies.core.errors import BadInput
from strategies.core.wire import client_sort_key
from strategies.registry import PLAIN, traits_of

_MOST_SENTENCES = 6
_RATES = {
    "test-accuracy": "; it classifies {} % of the test images correctly",
    "attack-success-rate": "; the backdoor works on {} % of the images with its trigger",
}
_RATE_NAMES = {
    "personal-accuracy": "Accuracy after personalisation",
    "global-accuracy": "Accuracy of the shared model at the clients",
    "test-accuracy": "Test accuracy",
    "attack-success-rate": "Attack success rate",
}


def subtitle(record: RunRecord) -> str:
    """Return when the run was begun and how far it is."""
    try:
        created = datetime.fromisoformat(record.created).strftime("%d %B %Y, %H:%M %z").strip()
    except ValueError:
        created = record.created
    rounds = f"{_completed(record)} of {record.settings.get('run.rounds', MISSING)} rounds completed"
    if record.pruning:
        rounds += f"; {_pruning_text(record)} pruned"
    return f"Begun {created}; {rounds}." if created else f"{rounds}."


def _completed(record: RunRecord) -> int:
    return max((int(line["round"]) for line in record.rounds), default=0)


def warnings(record: RunRecord) -> Iterator[str]:
    """Yield the warnings that come before anything else."""
    if not record.summary:
        yield (
            "This run is not finished; the report shows it as far as it got. "
            f"Resume it with: lethe train --resume {record.name}"
        )
    yield from (str(note) for note in record.summary.get("notes") or ())
    yield from record.problems


def _named(record: RunRecord, what: str, key: str) -> str:
    """Return what the run's model or data are called, which of a project's only the summary says."""
    said = record.summary.get(what) or {}
    return str(said.get("name") or record.settings.get(key, MISSING))


def in_short(record: RunRecord) -> Iterator[str]:
    """Yield the run in a few sentences."""
    model, data = _named(record, "model", "model.name"), _named(record, "data", "data.name")
    clients = record.summary.get("clients")
    who = f"{count(len(clients), 'client')} trained" if clients else "Clients are training"
    if (personal := _last(record, "personal-accuracy")) is not None:
        shared = _last(record, "global-accuracy")
        scored = is_scored(record.summary)
        does, unit = ("scores", "of 100") if scored else ("classifies", "% correctly")
        yield (
            f"{who} the model '{model}' on the data set '{data}', each a version of its own: on test data as "
            f"its own are, a client's version {does} {number(personal)} {unit}, the model that all share "
            f"{number(shared)}{'' if scored else ' %'}."
        )
    elif not _has_one_model(record.settings):
        gain = _last(record, "collaboration-gain")
        gained = "" if gain is None else f", {number(gain)} points above what each had alone"
        yield f"{who} models of their own on the data set '{data}'{_rate(record, 'test-accuracy')}{gained}."
    else:
        yield f"{who} the model '{model}' together on the data set '{data}'{_rate(record, 'test-accuracy')}."
    if privacy := record.summary.get("privacy"):
        yield f"What the training released is differentially private: at most {wording.private(privacy)}."
        yield wording.meaning_of(privacy)
    if record.poisoned:
        attackers = wording.listed(sorted(record.poisoned, key=client_sort_key))
        rate = _rate(record, "attack-success-rate")
        yield f"To measure the forgetting, client {attackers} attacked with a backdoor{rate}."
    yield from (sentence(forgetting) for forgetting in record.forgettings[:_MOST_SENTENCES])
    if (more := len(record.forgettings) - _MOST_SENTENCES) > 0:
        yield f"{count(more, 'more forgetting')} below."


def cards(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield the figures that come before anything else, each with what it is."""
    headline = headline_of(record.summary)
    key = "personal-accuracy" if _last(record, "personal-accuracy") is not None else "test-accuracy"
    if headline is not None and headline.key not in _RATE_NAMES:
        if (value := _last(record, headline.key)) is not None:
            yield figure(headline.name, value), wording.capital(headline.words)
    elif (value := _last(record, key)) is not None:
        yield f"{number(value)} %", _RATE_NAMES[key].lower()
    if privacy := record.summary.get("privacy"):
        spent = wording.most_spent(privacy)
        yield f"ε = {spent}", f"at most, per {privacy['unit']}, at δ = {privacy['delta']:g}"
    if judged := record.summary.get("judged"):
        yield f"round {judged['round']}", f"kept, of {judged['trained']} trained"
    done = [f for f in record.forgettings if f.method != RETRAIN]
    if done:
        audited = sum(f.audit is not None for f in done)
        yield count(len(done), "forgetting"), f"{audited} audited"


def _rate(record: RunRecord, key: str) -> str:
    headline = headline_of(record.summary)
    if key == "test-accuracy" and headline is not None and headline.key != key:
        value = _last(record, headline.key)
        where = "the test data" if headline.key.startswith("test") else "what the clients hold out"
        return "" if value is None else f"; {headline.words} on {where}: {figure(headline.name, value)}"
    value = _last(record, key)
    return "" if value is None else _RATES[key].format(number(value))


def rounds_in_model(record: RunRecord) -> list[Mapping[str, Any]]:
    """Return the lines of the rounds that are in the run's model."""
    last = (record.summary.get("judged") or {}).get("round", _completed(record))
    return [line for line in record.rounds if int(line["round"]) <= last]


def last_figure(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the last figure of some rounds; None if none has it."""
    return next((float(line[key]) for line in reversed(lines) if line.get(key) is not None), None)


def _last(record: RunRecord, key: str) -> float | None:
    return last_figure(rounds_in_model(record), key)


def properties(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield the properties of the run, each with its name and value."""
    summary, settings = record.summary, record.settings
    yield "Strategy", str(settings.get("strategy.name", MISSING))
    yield "Rounds", f"{_completed(record)} of {settings.get('run.rounds', MISSING)}"
    if judged := summary.get("judged"):
        yield "Model", wording.kept_round(judged)
    if record.origin:
        yield "Comes from", record.origin
    yield from _data_properties(summary, settings)
    model = summary.get("model") or {}
    yield "Model", _model_text(model, settings)
    if record.pruning:
        yield "Pruned", _pruning_text(record)
    for key, name in _RATE_NAMES.items():
        if (value := _last(record, key)) is not None:
            scored = is_scored(summary) and key != "attack-success-rate"
            yield (
                f"{name.replace('Accuracy', 'Score') if scored else name}, last evaluated",
                f"{number(value)} of 100" if scored else f"{number(value)} %",
            )
    headline = headline_of(summary)
    if headline is not None and headline.key not in _RATE_NAMES:
        value = _last(record, headline.key)
        yield f"{wording.capital(headline.words)}, last evaluated", figure(headline.name, value)
    if privacy := summary.get("privacy"):
        yield "Privacy", wording.private(privacy)
    yield "Update log", _log_text(summary.get("log"), settings)
    yield "Attack", _attack_text(record)
    yield "Seed", str(settings.get("run.seed", MISSING))
    yield "Device", str(settings.get("run.device", MISSING))


def _pruning_text(record: RunRecord) -> str:
    pruning = record.pruning
    share = f"{100 * float(pruning['sparsity']):g} % of the weights ({pruning['prune']})"
    return f"{share} of run {record.parent}" if record.parent else share


def _has_one_model(settings: Mapping[str, Any]) -> bool:
    """Say whether all clients train one model; assume that they do if the algorithm no longer exists."""
    try:
        return traits_of(str(settings.get("strategy.name", PLAIN))).one_model
    except BadInput:
        return True


def _model_text(model: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if not _has_one_model(settings):
        names = ", ".join(model.get("names") or ()) or settings.get("strategy.models", MISSING)
        return f"one per client: {names}"
    parameters = f", {model['parameters']:,} parameters" if "parameters" in model else ""
    return f"{model.get('name') or settings.get('model.name', MISSING)}{parameters}"


def _data_properties(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = summary.get("data") or {}
    shape = " × ".join(map(str, data.get("input-shape") or ()))
    name = str(data.get("name") or settings.get("data.name", MISSING))
    yield "Data", ", ".join([name, *([shape] if shape else [])])
    partition = str(settings.get("data.partition", MISSING))
    details = {"dirichlet": "alpha", "shards": "shards-per-client", "pathological": "classes-per-client"}
    if key := details.get(partition):
        partition += f" ({key} {settings.get(f'data.{key}', MISSING)})"
    yield "Partition", partition
    if clients := summary.get("clients"):
        known = [int(info["num-examples"]) for info in clients.values() if "num-examples" in info]
        examples = count(sum(known), "example") if known else "numbers of examples that they do not tell"
        yield "Clients", f"{len(clients)} with {examples}"
    if labels := summary.get("analytics"):
        counts = wording.listed(
            [f"{int(b)}: {n}" for b, n in zip(labels["bins"], labels["counts"], strict=True)]
        )
        noise = f", with noise (ε = {labels['epsilon']:g} per example)" if labels.get("epsilon") else ""
        yield "Labels over all clients", f"{counts}{noise}; only the sums are known"
    for name, key in (("Public data on the server", "public-examples"), ("Test data", "test-examples")):
        if data.get(key) is not None:
            yield name, count(int(data[key]), "example") if data[key] else "none"


def _log_text(log: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> str:
    if log:
        return f"{log.get('retention')}, {log.get('dtype')}, {wording.size(log.get('bytes') or 0)}"
    return str(settings.get("log.retention", MISSING)) if settings.get("log.enabled", False) else "none"


def _attack_text(record: RunRecord) -> str:
    if not record.poisoned:
        return "none"
    settings = record.settings
    clients = wording.listed(sorted(record.poisoned, key=client_sort_key))
    share = f"{100 * float(settings.get('attack.share', 0)):.0f} % of its images"
    return f"{settings['attack.kind']} by client {clients}: {share}, target class {settings['attack.target']}"
