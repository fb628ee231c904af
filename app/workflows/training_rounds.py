"""A training at work: each round as it is recorded, the checkpoint after it, and the summary at the end."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from app.client.node import asked_epsilon, scoring_of
from app.data.record import weights_of
from app.version import version
from app.workflows import session as sessions
from app.workflows.accounts import RunAccounts
from app.workflows.fresh_seeds import fresh_seed
from app.workflows.judging import JUDGED
from app.workflows.recording import Recorder, results_of_training
from app.workflows.session import Session
from app.workflows.trained import read_mask
from strategies.core import wire
from strategies.core.errors import LetheError, RunCorrupt
from strategies.layers.privacy.server import RememberedAttempts, privacy_summary
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.registry import lookup
from strategies.rounds import train as train_rounds
from strategies.runs.checkpoint import Checkpoint
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from strategies.server import memory
from strategies.server.cohort import Cohort, Fault, Traffic
from strategies.server.grids import StatefulGrid, notes_of
from unlearning.methods.federated import feasible_selection

ANALYTICS = "analytics.json"
"""Name of the file with the distribution of labels over all clients, where the run has asked for it."""
TRAINED = "trained"
"""In a checkpoint: how many rounds were trained in all, if training is over and its model is of fewer."""


class Training:
    """A run in progress: records each round, so that it can be resumed and reported."""

    def __init__(
        self, session: Session, folder: RunFolder, cohort: Cohort, log: UpdateLog | None, observer: Recorder
    ) -> None:
        self._session = session
        self._folder = folder
        self._cohort = cohort
        self._log = log
        self._observer = observer
        cohort.tell(observer.answered)
        self._seconds = 0.0
        self._traffic = Traffic()
        self._faults: list[dict[str, str]] = [_fault_json(f) for f in cohort.faults]
        self._last: Mapping[str, float] = {}
        self._privacy: Mapping[str, Any] | None = None
        self._nodes: Mapping[str, int] = {}
        self._repeats = 0
        self._learned = False
        self._evaluator = session.evaluator()
        self._evaluations: dict[str, Any] = {}
        self._judge = session.judge()
        self._trained = 0

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue the counts of an interrupted run."""
        extra = checkpoint.extra
        self._seconds = float(extra["seconds"])
        self._traffic = Traffic(*extra["traffic"])
        self._faults[:0] = extra["faults"]
        self._last = dict(extra["last"])
        self._privacy = extra.get("privacy")
        self._learned = bool(extra.get("learned", True))
        self._evaluations = dict(extra.get("evaluations", {}))
        self._trained = int(extra.get(TRAINED, checkpoint.round))
        if self._judge is not None and JUDGED in extra:
            self._judge.restore(extra[JUDGED])
            if self._judge.best == checkpoint.round:
                self._keep_round(checkpoint.round)
        grid = self._cohort.grid
        if isinstance(grid, StatefulGrid) and checkpoint.client_states:
            grid.restore_client_states({int(node): s for node, s in checkpoint.client_states.items()})

    def run(self, start: Start, layout: wire.Layout) -> None:
        """Train a model of a layout to the last round and write the results."""
        plan = self._planned(start)
        self._note_nodes()
        self._observer.phase(f"train {self._folder.name}", plan.rounds - start.completed_rounds)
        for fault in self._cohort.faults:  # Who is left out from the start
            self._observer.note(_fault_text(fault))
        accounts = self._accounts(start.completed_rounds)
        self._repeats = accounts.repeats()
        arrays = train_rounds(
            plan,
            self._with_fresh_seed().masked(read_mask(self._folder, layout)),
            replace(start, attempts=accounts.attempts(), privacy=start.privacy or accounts.inherited()),
            layer=self._layer,
            evaluate=self._evaluator,
            on_round=self._on_round,
        )
        state = self._chosen(wire.state_of(arrays))
        if self._log is not None:
            self._log.compact()
        summary = self._summary()
        self._folder.write_summary(summary)
        self._observer.results(results_of_training(self._folder, summary))
        self._folder.drop_kept()
        self._folder.write_model(state)
        if not self._learned:
            raise LetheError(f"run '{self._folder.name}': {self._nothing_learned()}")

    def _planned(self, start: Start) -> TrainingPlan:
        """Return the plan; a training that was over when it was interrupted has no further round."""
        plan = self._session.plan
        if self._session.forgotten:
            plan = replace(plan, selection=feasible_selection(plan.selection, self._cohort))
        over = self._trained > start.completed_rounds or (
            self._judge is not None and self._judge.ends(start.completed_rounds)
        )
        return replace(plan, rounds=start.completed_rounds) if over else plan

    def _chosen(self, state: wire.State) -> wire.State:
        """Return the model of the round that the run keeps, and make that the last one of log and checkpoint.

        What later rounds have cost stays counted, and their lines in the metrics stay.
        """
        chosen = self._chosen_round
        if chosen == self._trained:
            return state
        checkpoint = self._folder.read_checkpoint()
        if checkpoint is None or checkpoint.round != chosen:
            kept = self._folder.read_kept()
            if kept is None or kept.round != chosen:
                raise RunCorrupt(f"run '{self._folder.name}': the checkpoint of round {chosen} is missing")
            self._last, self._evaluations = kept.extra["last"], kept.extra["evaluations"]
            extra = {**self._extra(), "neurons": kept.extra["neurons"], TRAINED: self._trained}
            checkpoint = replace(kept, extra=extra)
            self._folder.write_checkpoint(checkpoint)
        if self._log is not None:
            self._log.rewind(chosen)
        return dict(checkpoint.state)

    @property
    def _chosen_round(self) -> int:
        return self._trained if self._judge is None else self._judge.chosen(self._trained)

    def _keep_round(self, server_round: int) -> None:
        """Keep a round that the run may end with: its checkpoint, and what the log has up to it."""
        if self._session.config.run.keep == "best":
            self._folder.keep_checkpoint()
            if self._log is not None:
                self._log.keep(server_round)

    def _nothing_learned(self) -> str:
        """Say why the model is still the initial one."""
        reasons = {
            fault["client"]: fault["reason"] for fault in self._faults if fault["client"] != wire.EVERYBODY
        }
        given = "; ".join(f"client {client}: {reason}" for client, reason in list(reasons.items())[:3])
        why = given or "none came"
        return f"no reply of a client could be used, so the model is as it was at the start ({why})"

    def _with_fresh_seed(self) -> Cohort:
        """Return the clients; with hidden sums, they draw from a new seed if rounds may be repeated."""
        if not self._session.config.privacy.hides_updates:
            return self._cohort
        seed = self._session.config.run.seed
        taken = fresh_seed(self._folder, seed, "train", first=True)
        return self._cohort if taken == seed else self._cohort.seeded(taken)

    def _accounts(self, completed_rounds: int = 0) -> RunAccounts:
        """Return the clients' accounts; a pruned run shares those of the run that it comes from."""
        privacy = self._session.config.privacy
        return RunAccounts(self._folder, privacy, self._folder.name, completed_rounds)

    def _layer(self, inner: Strategy) -> Strategy:
        logged = inner if self._log is None else self._logged(inner, self._log)
        strategy = self._session.config.strategy
        if not strategy.adds_noise and not self._session.config.privacy.clients_add_noise:
            return logged  # A central release is paid for in the checkpoint that holds it
        remembered = RememberedAttempts(logged, self._cohort.names, self._accounts().asked)
        counting = lookup(strategy.name).counting_repeats
        return remembered if counting is None else counting(remembered, self._repeats)

    def _note_nodes(self) -> None:
        """Record the node behind each client-id, in case the server dies."""
        if self._nodes != (nodes := self._cohort.nodes):
            self._folder.write_nodes({**self._session.nodes, **nodes})
            self._nodes = nodes

    def _logged(self, inner: Strategy, log: UpdateLog) -> Strategy:
        examples = {info.node_id: info.num_examples for info in self._cohort.clients.values()}
        return LoggedStrategy(inner, log, examples)

    def _on_round(self, result: RoundResult, strategy: Strategy) -> bool:
        """Record a round; say whether training ends with it."""
        self._check_keys(result)
        self._trained = result.round
        self._seconds += result.seconds
        self._traffic.add(result.traffic)
        self._faults += [_fault_json(f) for f in result.faults]
        self._last = dict(result.metrics)
        self._privacy = result.privacy
        if result.privacy is not None:
            self._accounts().spent(result.privacy)
        self._learned |= result.used_an_answer
        on_server = None if self._evaluator is None else self._evaluator.tables
        found = {"server": on_server, "clients": result.evaluation}
        self._evaluations |= {where: figures for where, figures in found.items() if figures is not None}
        line = round_json(result)
        self._folder.append_metrics(line)
        self._observer.round(line)
        self._note_nodes()
        grid = self._cohort.grid
        states, versions = _states_of(grid)
        improved = self._judge is not None and self._judge.judge(result.round, result.metrics)
        self._folder.write_checkpoint(
            Checkpoint(
                result.round,
                wire.state_of(result.arrays),
                {**self._extra(), "neurons": dict(result.neurons)},
                memory.capture(strategy),
                {n: s for n, s in {**states, **result.pending_states}.items() if s},
                {n: version for n, version in versions.items() if n not in result.pending_states},
            )
        )
        if improved:
            self._keep_round(result.round)
        self._observer.advance(f"round {result.round}", result.metrics)
        for fault in result.faults:
            self._observer.aside(_fault_text(fault))
        return self._judge is not None and self._judge.ends(result.round)

    def _extra(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides the model and the states."""
        return {
            "seconds": self._seconds,
            "traffic": [self._traffic.bytes_down, self._traffic.bytes_up, self._traffic.visits],
            "faults": self._faults,
            "last": self._last,
            "privacy": self._privacy,
            "learned": self._learned,
            "evaluations": self._evaluations,
            **({} if self._judge is None else {JUDGED: self._judge.to_json()}),
        }

    def _check_keys(self, result: RoundResult) -> None:
        """End a run that would train nothing as its clients' keys are missing or differ; nothing is kept."""
        if self._session.config.privacy.encryption == "none" or result.round != 1 or result.accepted:
            return
        reasons = "; ".join(f"client {f.client_id}: {f.reason}" for f in result.faults[:3])
        raise LetheError(
            f"privacy.encryption: the first round could use no client's update ({reasons}); give all clients "
            "the same key (lethe keys FOLDER --encryption) and resume"
        )

    def _client_figures(self) -> dict[str, Any]:
        """Return each client's last report of a model of its own."""
        lines = self._folder.read_metrics()
        latest = {i: figures for line in lines for i, figures in (line.get("clients") or {}).items()}
        return {"client-models": latest} if latest else {}

    def _judged(self) -> dict[str, Any]:
        """Return which round the run keeps and why, for its summary; nothing where no round is judged."""
        validation = self._session.server_data.validation
        if self._judge is None or validation is None:
            return {}
        return {JUDGED: self._judge.described(self._trained, len(validation))}

    def _summary(self) -> dict[str, Any]:
        config, data = self._session.config, self._session.server_data
        trigger, weights = self._session.trigger, weights_of(self._folder)
        counts = Counter(fault["client"] for fault in self._faults)
        return {
            "name": self._folder.name,
            "lethe-version": version(),
            "strategy": config.strategy.name,
            "rounds": config.run.rounds,
            "completed-rounds": self._chosen_round,
            **self._judged(),
            "data": {
                "name": data.name,
                "num-classes": data.num_groups,
                "input-shape": list(data.input_shape),
                "class-names": list(data.class_names),
                "public-examples": len(data.public) if data.public is not None else 0,
                "test-examples": len(data.test) if data.test is not None else 0,
                **({} if data.validation is None else {"validation-examples": len(data.validation)}),
            },
            "model": {**self._session.model_json(), **({"weights": weights} if weights else {})},
            "clients": sessions.clients_json(self._cohort.clients),
            "attack": None
            if trigger is None
            else {
                "kind": config.attack.kind,
                "clients": list(self._session.attackers),
                "target": trigger.target,
                "size": trigger.size,
            },
            "final": self._last,
            "evaluations": self._evaluations,
            **self._client_figures(),
            "privacy": None
            if self._privacy is None
            else privacy_summary(
                config.privacy,
                self._privacy,
                list(self._cohort.clients),
                scoring_of(config),
                asked_epsilon(config),
                engine=_clipped_by(self._session),
            ),
            "analytics": read_json(labels) if (labels := self._folder.path / ANALYTICS).exists() else None,
            "secure-aggregation": {"threshold": config.privacy.threshold}
            if config.privacy.secure_aggregation
            else None,
            "seconds": self._seconds,
            "traffic": _traffic_json(self._traffic),
            "faults": self._faults,
            "fault-counts": dict(counts),
            "log": None
            if self._log is None
            else {
                **self._log.summary(),
                "dtype": config.log.dtype,
                "bytes": self._log.stored_bytes(),
            },
            "notes": [
                *self._session.notes,
                *([] if self._learned else [self._nothing_learned()]),
                *notes_of(self._cohort.grid),
            ],
        }


def _clipped_by(session: Session) -> str | None:
    """Return how the clients clip the gradients of single examples; None if they do not."""
    privacy = session.config.privacy
    if privacy.unit != "example":
        return None
    from strategies.layers.privacy.models import engine_words

    return engine_words(session.model(), privacy.engine)


def _states_of(grid: Grid) -> tuple[Mapping[int, bytes], Mapping[int, int]]:
    """Return the clients' states and their versions, by node id; nothing where each keeps its own."""
    return (grid.client_states(), grid.state_versions()) if isinstance(grid, StatefulGrid) else ({}, {})


def _fault_text(fault: Fault) -> str:
    return f"client {fault.client_id}, {fault.scope}: {fault.reason}"


def _fault_json(fault: Fault) -> dict[str, str]:
    return {"client": fault.client_id, "scope": fault.scope, "reason": fault.reason}


def _traffic_json(traffic: Traffic) -> dict[str, int]:
    return {"bytes-up": traffic.bytes_up, "bytes-down": traffic.bytes_down, "visits": traffic.visits}


def round_json(result: RoundResult) -> dict[str, Any]:
    """Return the line of ``metrics.jsonl`` on a round."""
    traffic, spent = _traffic_json(result.traffic), result.privacy or {}
    del traffic["visits"]
    return {"round": result.round, **result.metrics} | {
        "round": result.round,
        "seconds": result.seconds,
        **traffic,
        **(
            {"clients": {i: dict(figures) for i, figures in result.clients.items()}} if result.clients else {}
        ),
        "selected": list(result.selected),
        "accepted": sorted(result.accepted, key=wire.client_sort_key),
        "faults": [_fault_json(f) for f in result.faults],
        **{key: dict(spent[key]) for key in ("epsilons", "epsilons-unamplified") if key in spent},
    }
