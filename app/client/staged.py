"""A client that is staged to measure forgetting: an attacker, or an honest client with hard examples.

Only because the run config stages it does the client know which of its examples are poisoned, or hard, and
say so to an audit: a real attacker would not tell, and a real client does not know.
"""

from dataclasses import replace

from app.config.run_config import RunConfig
from app.project import ClientData
from strategies.client.backdoor import default_trigger, poison
from strategies.client.hard_examples import harden
from strategies.core.seeds import torch_generator


def staged(found: ClientData, config: RunConfig, client_id: str) -> ClientData:
    """Return a client's data as the run config stages them; as they are for all other clients.

    Raises
    ------
    BadInput
        If the data cannot be poisoned, or made hard.
    """
    attack, hard = config.attack, config.hard
    if client_id in attack.attackers:
        trigger = default_trigger(found.train.input_shape, attack.target)
        generator = torch_generator(config.data_seed, "attack", client_id)
        train, altered = poison(found.train, attack.share, trigger, generator)
        return replace(found, train=train, altered=altered)
    if client_id in hard.client_ids:
        generator = torch_generator(config.data_seed, "hard", client_id)
        train, altered = harden(found.train, hard.kind, hard.examples, generator)
        return replace(found, train=train, altered=altered)
    return found
