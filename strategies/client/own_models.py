"""What a client with a model of its own keeps between messages: that model as one vector, and a few figures.

Flower ships a client's state with every message in simulation, so no optimiser's moments are kept. A client
may hold the models of several lineages of training: that of the run, under no name, and those of retrainings
and forgettings, which leave it alone.
"""

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.wire import State

_MODEL = "model"
_TRANSFERRED = "transferred"


def records_of(state: RecordDict, lineage: str) -> RecordDict:
    """Return those records of a client's state that belong to a lineage."""
    names = [name for name in state if "/" in name and name.partition("/")[2] == lineage]
    return RecordDict({name: state[name] for name in names})


class ClientState:
    """The records of one lineage in a client's state.

    Parameters
    ----------
    records
        ``context.state``, changed in place.
    lineage
        Name of the lineage; empty: the run's own.
    """

    def __init__(self, records: RecordDict, lineage: str, kind: str) -> None:
        self._records = records
        self._name = f"{kind}/{lineage}"
        self._figures_name = f"{kind}-figures/{lineage}"

    @property
    def figures(self) -> dict[str, float]:
        """What was measured before the first round."""
        return dict(wire.iter_numbers(self._records.metric_records.get(self._figures_name, {})))

    def write_figures(self, figures: Mapping[str, float]) -> None:
        """Keep what was measured before the first round."""
        self._records[self._figures_name] = MetricRecord(dict(figures))

    def read_model(self, model: nn.Module, *, transferred: bool = False) -> bool:
        """Load the kept weights into a model of the client's architecture; return whether there were any.

        Parameters
        ----------
        transferred
            The weights of before the first round, if these were kept, instead of the present ones.

        Raises
        ------
        LetheError
            If they are those of another architecture.
        """
        record = self._records.array_records.get(self._name, ArrayRecord())
        name = _TRANSFERRED if transferred else _MODEL
        if name not in record:
            return False
        layout = wire.Layout.of(model.state_dict())
        flat = torch.from_numpy(np.array(record[name].numpy()))
        if flat.shape != (layout.size,):
            raise LetheError(
                f"this client's model has {layout.size} parameters, but the state it kept has {len(flat)}: "
                "its model was exchanged while the run went on"
            )
        wire.load_flat(model, flat, layout)
        return True

    def write_model(self, model: nn.Module) -> None:
        """Keep a model's present weights."""
        self._put(_MODEL, wire.Layout.of(model.state_dict()).flatten(model.state_dict()))

    def keep_transferred(self) -> None:
        """Keep a copy of the present weights as the weights before the first round."""
        record = self._records.array_records[self._name]
        self._put(_TRANSFERRED, torch.from_numpy(np.array(record[_MODEL].numpy())))

    def read(self, tensors: State) -> None:
        """Load kept tensors into those of a model, in place; of another name or shape, a tensor stays."""
        record = self._records.array_records.get(self._name, ArrayRecord())
        with torch.no_grad():
            for name, tensor in tensors.items():
                if name in record and tuple(record[name].shape) == tuple(tensor.shape):
                    tensor.copy_(torch.from_numpy(np.array(record[name].numpy())))

    def write(self, tensors: State) -> None:
        """Keep tensors, by name."""
        arrays = {name: Array(t.detach().cpu().numpy()) for name, t in tensors.items()}
        self._records[self._name] = ArrayRecord(arrays)

    def _put(self, name: str, flat: Tensor) -> None:
        kept = self._records.array_records.get(self._name, ArrayRecord())
        self._records[self._name] = ArrayRecord({**kept, name: Array(flat.numpy())})
