"""The audit where every client has its own model, which never leaves it.

Each remaining client answers about its own model, and the figures are means over these clients' models. D_r
is what a client holds itself. D_f lies with the client that is forgotten, whose data the others have only in
a simulation, where every process can load every partition: deployed, forgetting a client can be done but not
measured so. D_t is what all clients are tested on. The figures that a server takes from parameters, their
distance and the angle of the last layer, do not exist here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.core import wire
from strategies.core.examples import Examples, groups_of
from strategies.server.cohort import Cohort
from strategies.task import CLASSIFICATION, FULL_SCORE, Task
from unlearning.audit.evidence import (
    AuditAnswer,
    answer_audit,
    decode_answer,
    encode_answer,
    encoded_correct,
)
from unlearning.audit.reading import check_correct
from unlearning.forget_spec import ForgetSpec, spec_for
from unlearning.request import ForgetRequest

FOREIGN = "foreign-clients"
"""Client-ids joined by commas, server to client, audits only: whose data follow the client's own."""
REFERENCE_LINEAGE = "reference-course"
"""str, server to client, audits only: the lineage whose model is the reference; missing: there is none."""
TEST_MARGIN = "test-margin"
"""Array, client to server. As `MARGIN`, of each test example, shape [t], float32."""
TEST_CORRECT = "test-correct"
"""Array, client to server. As `CORRECT`, of each test example, shape [t]."""


@dataclass(frozen=True, eq=False)
class OnTest:
    """The clients' models on the test data, one after another: vectors of shape [clients · t].

    `groups` are such as classes, `margin` says how well the model knows an example, `correct` how far its
    output is right, from 0 to 1.
    """

    groups: Tensor
    margin: Tensor
    correct: Tensor


def answer_about_own_model(
    question: RecordDict,
    examples: Examples,
    test: Examples | None,
    model_of: Callable[[str], nn.Module],
    task: Task = CLASSIFICATION,
) -> tuple[dict[str, float | int], ArrayRecord]:
    """Answer about the client's own model; returns the metrics and arrays of the reply.

    Parameters
    ----------
    question
        The message's content.
    examples
        The client's own, then those of `FOREIGN`.
    test
        The test data, or None.
    model_of
        Returns the client's model of a lineage.
    """
    config = question.config_records.get(wire.CONFIG, ConfigRecord())
    model = model_of(str(config.get(wire.LINEAGE, "")))
    reference = model_of(str(config[REFERENCE_LINEAGE])) if REFERENCE_LINEAGE in config else None
    spec = ForgetSpec.from_config(config)
    numbers, arrays = encode_answer(answer_audit(model, examples, spec, reference, task=task), task)
    if test is not None:
        outputs, targets = outputs_of(model, test, task=task), test.targets()
        correct = encoded_correct(task.scores(outputs, targets) / FULL_SCORE, task)
        arrays[TEST_MARGIN] = Array(task.confidences(outputs, targets).numpy())
        arrays[TEST_CORRECT] = Array(correct.numpy())
    return numbers, arrays


class OwnModelQuestions:
    """Makes each client's question about its own model; see `unlearning.audit.gathering.Questions`.

    Of the cohort, all clients, only the numbers of examples are read. `reference_lineage` is that of the
    retrained models, or None; `test` the test data, or None.
    """

    def __init__(
        self,
        request: ForgetRequest,
        cohort: Cohort,
        reference_lineage: str | None,
        earlier: Sequence[ForgetRequest],
        test: Examples | None,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.request = request
        self._task = task
        self._sizes = {i: info.num_examples for i, info in cohort.clients.items()}
        self._reference_lineage = reference_lineage
        self.earlier = earlier
        self._test = test
        self._tested: dict[str, tuple[Tensor, Tensor]] = {}
        self._foreign = [i for i in request.clients if i in self._sizes]

    def _spec(self, client_id: str) -> ForgetSpec:
        spec = spec_for(self.request, client_id, self.earlier)
        own = self._sizes[client_id]
        foreign = tuple(range(own, own + sum(self._sizes[i] for i in self._foreign)))
        return ForgetSpec(
            False, spec.classes, (*spec.indices, *foreign), spec.earlier_classes, spec.earlier_indices
        )

    def __call__(self, client_id: str) -> RecordDict:
        """Return the content of a client's message."""
        config = self._spec(client_id).to_config()
        config[FOREIGN] = ",".join(self._foreign)
        if self._reference_lineage is not None:
            config[REFERENCE_LINEAGE] = self._reference_lineage
        return RecordDict({wire.CONFIG: config})

    def read(self, client_id: str, content: RecordDict, num_examples: int | None) -> AuditAnswer:
        """Decode a client's answer; see `decode_answer`."""
        spec = self._spec(client_id)
        total = (num_examples or self._sizes[client_id]) + sum(self._sizes[i] for i in self._foreign)
        answer = decode_answer(content, spec, total, self._reference_lineage is not None, self._task)
        if self._test is not None:
            self._tested[client_id] = _test_part(content, len(self._test))
        return answer

    def tested(self) -> OnTest:
        """Return the answers about the test data, in the order of the client-ids."""
        ids = sorted(self._tested, key=wire.client_sort_key)
        if self._test is None or not ids:
            return OnTest(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0))
        margin, correct = zip(*(self._tested[i] for i in ids), strict=True)
        groups = torch.cat([groups_of(self._test)] * len(ids))
        return OnTest(groups, torch.cat(margin), torch.cat(correct))


def _test_part(content: RecordDict, size: int) -> tuple[Tensor, Tensor]:
    arrays: Mapping[str, Array] = content.array_records.get(wire.ARRAYS, ArrayRecord())
    if TEST_MARGIN not in arrays or TEST_CORRECT not in arrays:
        raise ValueError("the client has no test data to answer about")
    margin = torch.from_numpy(np.array(arrays[TEST_MARGIN].numpy()))
    correct = torch.from_numpy(np.array(arrays[TEST_CORRECT].numpy()))
    if margin.shape != (size,) or correct.shape != (size,):
        raise ValueError(f"answers to {len(margin)} test examples, expected {size}")
    if not bool(margin.isfinite().all()):
        raise ValueError(f"'{TEST_MARGIN}' holds values that are not finite")
    check_correct(TEST_CORRECT, correct)
    return margin, correct.float()
