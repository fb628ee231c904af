"""Forgetting in FedMD: the remaining clients digest the logged consensus again, without the client.

Not in a paper. In FedMD (Li, Wang, arXiv 1910.03581; see `strategies.fedmd`) a client reaches the others only
through the consensus on public data. The log holds every client's answers, so for each kept round t

    f̃'_t(x) = Σ_{k ≠ target} c_k f_k,t(x),   Σ_{k ≠ target} c_k = 1

follows from the log; the remaining clients digest f̃'_t on the same public examples and revisit
their own data, with the settings of the run. They start from the model that they had before the first round
(``start = "transferred"``), which learned nothing of the target, or from the one they have now.

Differs from retraining: no questions are asked, and the answers that the others gave after the first round
came from models that had digested the target's. Guarantee: approximate; what the target taught the others
may come back through their later answers, or, from ``now``, stay. Needs: the log of every round or some of
them, and the remaining clients online. Cost: one visit to every remaining client per replayed round, half of
a round's messages; from ``transferred`` also the transfer learning, where clients did not keep that model
(``strategy.keep-transferred``).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.fedmd import client
from strategies.fedmd.server import FedMD, means
from strategies.log.reading import LogReader
from strategies.server.reports import rebuilt
from strategies.task import OutputSpec
from unlearning.methods.base import ForgetJob, Method, Outcome
from unlearning.traits.redistill import NAME, TRAITS, RedistillSettings


def kept_answers(
    log: LogReader, server_round: int, excluded: Collection[str], num_outputs: int
) -> dict[str, Tensor]:
    """Return the logged answers of a round by client-id, shape [n, classes] each, without some clients'."""
    ids = [e.client_id for e in log.entries(server_round) if e.client_id not in excluded]
    return {i: log.delta(server_round, i).view(-1, num_outputs) for i in ids}


@dataclass
class _Replay:
    """Replays the rounds of a job."""

    job: ForgetJob
    strategy: FedMD
    rounds: list[int]
    settings: "RedistillSettings"

    def round(self, server_round: int, consensus: Tensor) -> dict[str, dict[str, float]]:
        """Let the remaining clients digest a round's consensus; return what they report."""
        job = self.job
        config = ConfigRecord(
            {
                wire.SERVER_ROUND: server_round,
                client.ALIGNMENT: self.strategy.alignment(server_round).tolist(),
                client.ORIGIN: job.run.lineage,
                client.FROM_START: self.settings.start == "transferred",
                wire.MEASURE: server_round == self.rounds[-1],
            }
        )
        arrays = wire.record_of({client.LOGITS: consensus})
        content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: config})
        scope = f"redistill round {server_round}"
        replies = job.remaining().ask(client.DIGEST, content, scope=scope)
        found = {r.client_id: _figures(r.message.content) for r in replies}
        if not found:
            raise LetheError(f"forgetting {job.request.name}: no client took part in {scope}")
        return found


def _figures(content: RecordDict) -> dict[str, float]:
    """Return the figures that a client's reply holds."""
    metrics = rebuilt(content.metric_records.get(wire.METRICS, MetricRecord()), client.RETURNS)[0]
    return {name: float(value) for name, value in metrics.items()}


def redistilled(job: ForgetJob) -> Outcome:
    """Recompute the consensus of the kept rounds and have the remaining clients digest it."""
    run, log = job.run, job.log
    strategy = run.plan.server_half()
    if not isinstance(strategy, FedMD):
        raise RuntimeError("needs were not checked")
    own = job.settings.own(NAME, RedistillSettings)
    rounds = log.kept_rounds()[-own.rounds :]
    replay = _Replay(job, strategy, rounds, own)
    num_outputs = run.task.outputs(OutputSpec(run.num_groups))
    consensus, reports = torch.zeros(0), dict[str, dict[str, float]]()
    for number, server_round in enumerate(rounds, start=1):
        answers = kept_answers(log, server_round, job.excluded_clients, num_outputs)
        if answers:
            consensus = strategy.consensus(answers)
            reports = replay.round(server_round, consensus)
        job.progress(number, len(rounds), means(list(reports.values())))
    if not reports:
        raise LetheError(f"forgetting {job.request.name}: nobody else answered in the last kept round")
    return Outcome(consensus.flatten(), job.absence_notes, _details(own.start, rounds, reports))


def _details(start: str, rounds: list[int], reports: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    figures = means([dict(report) for report in reports.values()])
    return {"rounds": len(rounds), "start": start, **figures}


METHOD = Method.of(TRAITS, run=redistilled)
