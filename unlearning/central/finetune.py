"""Fine-tuning (FT): train on the retained data and let the forgotten data fade.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 3 (method after Golatkar et al. 2020 and Warnecke et al. 2021):

    θu = SGD(θo; D_r), a few epochs (paper: 10) at a small learning rate (paper: 0.01).

Guarantee: none; what was learned from D_f fades only as far as D_r overwrites it.
Needs: the retained data. At 0 epochs the model comes back unchanged.
Cost: the epochs over the retained data.
"""

from torch import Generator, nn

from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings, trained


class FinetuneSettings(SgdSettings):
    """Fine-tuning; fields and their meaning as in `SgdSettings`."""


def finetune(
    model: nn.Module,
    retain: Data,
    settings: FinetuneSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo, fine-tuned on the retained data D_r; parameters as in `trained`."""
    return trained(model, retain, settings, generator, masks=masks, task=task)
