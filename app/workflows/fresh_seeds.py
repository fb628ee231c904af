"""Seeds that no training of a run had before, where the server gets sums of updates and no single one.

Two sums over nearly the same clients differ by what the others sent, and by nothing else if all clients draw
the same numbers in both: the server would know a client that is in one of them alone. So a training of masked
or encrypted sums that is begun again, after an interruption or without what shall be forgotten, lets its
clients draw from another seed. The seeds follow from the run's own and from how often it was begun before,
which is written down before anything is asked; so the whole history repeats, and no seed of it does.
"""

from app.forgettings.folder import outermost
from strategies.core.seeds import derive_seed
from strategies.runs import files
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import append_line, read_lines

STARTS = "masked-starts.jsonl"
"""Name of the file that says which trainings of hidden sums were begun, in the outermost run's folder."""


def fresh_seed(folder: RunFolder, seed: int, what: str, *, first: bool = False) -> int:
    """Return the seed of the training that begins now, and write down that it does.

    Parameters
    ----------
    folder
        Of the run; those that it lies in, or that lie in it, share the count.
    seed
        The run's own.
    what
        What is trained, for people.
    first
        Whether it may be the run's own training: that takes the run's own seed the first time.

    Raises
    ------
    LetheError
        If the disk does not take it; nothing may be asked then.
    """
    path = outermost(folder).path / STARTS
    with files.locked(path):
        before = [int(line["number"]) for line in read_lines(path) if line["of-seed"] == seed]
        number = max(before, default=-1 if first else 0) + 1
        taken = derive_seed(seed, "start", number) if number else seed
        append_line(path, {"of-seed": seed, "number": number, "seed": taken, "what": what})
    return taken
