"""Bad teacher: learn from the old model on the retained data, from a random one on the forgotten.

Chundawat, Tarun, Mandal, Kankanhalli, "Can Bad Teaching Induce Forgetting?", AAAI 2023, arXiv 2205.08096,
section 4. With the competent teacher T_s = f(·; θo) and the incompetent one T_d, whose weights are random:

    L(x) = (1 − l) KL(T_s(x) ‖ f(x; θ)) + l KL(T_d(x) ‖ f(x; θ)),   l = 1 on D_f and 0 on D_r.

Differs from the paper: all of D_r is used, not 30 % of it.

Guarantee: none; the answers on D_f become those of a model that knows nothing, while a retrained one
generalises.
Needs: both sets; no label is read. Without a forgotten example the old model stays as it is but for rounding.
Cost: the epochs over both sets, and one pass of each teacher.
"""

from torch import Generator, nn

from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.lessons import Lesson, taught
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings


class BadTeacherSettings(SgdSettings):
    """Bad teacher; fields and their meaning as in `SgdSettings`."""


def answers_for(data: Examples, teacher: nn.Module, task: Task) -> list[Lesson]:
    """Return the lesson of a teacher's answers alone; none where there is no example."""
    return [Lesson.answers(data, teacher, 1.0, task=task)] if len(data) else []


def bad_teacher(
    model: nn.Module,
    teachers: tuple[nn.Module, nn.Module],
    parts: tuple[Data, Data],
    settings: SgdSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model, taught by two teachers.

    Parameters
    ----------
    teachers
        The competent and the incompetent one, on the model's device.
    parts
        What each of them teaches: D_r and D_f, of which one may be empty.
    """
    pairs = zip(parts, teachers, strict=True)
    lessons = [lesson for data, teacher in pairs for lesson in answers_for(gathered(data), teacher, task)]
    return taught(model, lessons, settings, generator, masks=masks, task=task)
