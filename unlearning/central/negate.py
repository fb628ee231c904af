"""NoT: negate the weights of a layer, then fine-tune on the retained data.

Khalil, Brunswic, Lamghari, Li, Beitollahi, Chen, "NoT: Federated Unlearning via Weight Negation", CVPR 2025,
arXiv 2503.05657:

    θ_l ← −θ_l  for the chosen layers l, by default the first;    θu = SGD(θ; D_r).

The negation breaks the fit between layers, while training can still reach a good model quickly from there.

Guarantee: none; negating again undoes it, so what is forgotten is what fine-tuning does not restore.
Needs: the retained data; nothing stored, and nothing of the forgotten data.
Cost: as fine-tuning.
"""

from collections.abc import Sequence

import torch
from torch import nn

from unlearning.central.parameters import copied, layers_with_weights, trainable


def negate(model: nn.Module, layers: Sequence[str] = ()) -> nn.Module:
    """Return a copy of the model with all parameters of some layers multiplied by −1.

    Layers are named as in `layers_with_weights`, by default the first; ValueError for any other name.
    Frozen parameters stay as they are.
    """
    known = layers_with_weights(model)
    chosen = tuple(layers) or known[:1]
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"no layer with weights is named {unknown[0]!r}; known are {', '.join(known)}")
    twin = copied(model)
    with torch.no_grad():
        for name in chosen:
            for parameter in trainable(twin.get_submodule(name)).values():
                parameter.neg_()
    return twin
