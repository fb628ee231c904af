"""Which clients a comparison forgets if no request is given: those that attack, and an honest one.

A poisoned client is the case that shows most; an honest one that leaves is the case that the law is about.
"""

from app.config.run_config import RunConfig
from strategies.core.errors import BadInput
from strategies.core.wire import client_sort_key
from strategies.runs.folder import CONFIG, RunFolder
from unlearning.request import ForgetRequest


def standard_requests(folder: RunFolder) -> tuple[ForgetRequest, ...]:
    """Return the requests for the attackers of a run together, if it has any, and for an honest client.

    The honest one is the first of these that there is: one with hard examples (``hard.clients``), one with
    classes of its own (``data.own-classes``), or the one with most examples.

    Raises
    ------
    BadInput
        If the run is not finished, or nobody would be left.
    """
    config = RunConfig.from_toml(folder.path / CONFIG)
    known = folder.read_summary()["clients"]
    sizes = {client_id: int(told.get("num-examples", 0)) for client_id, told in known.items()}
    attackers = config.attack.attackers
    requests = [ForgetRequest(clients=attackers)] if attackers else []
    honest = [client_id for client_id in sorted(sizes, key=client_sort_key) if client_id not in attackers]
    owners = [str(owner) for _, owner in config.data.class_owners]
    preferred = [i for i in (*config.hard.client_ids, *owners) if i in honest]
    largest = sorted(honest, key=lambda client_id: -sizes[client_id])
    if len(honest) > 1:
        requests.append(ForgetRequest(clients=((*preferred, *largest)[0],)))
    if not requests or len(sizes) < 2:
        raise BadInput(
            f"run '{folder.name}': it has {len(sizes)} clients, and no standard case; give --client, --class "
            "or --samples"
        )
    return tuple(requests)
