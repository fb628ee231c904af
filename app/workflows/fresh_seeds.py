"""Seeds that no earlier training of a run had, for runs whose server gets only sums of updates.

Two sums over nearly the same clients differ only in what the other clients sent if all clients draw the same
numbers in both: the server would learn the update of a client that is in one of them alone. So when a
training of masked or encrypted sums begins again, after an interruption or without the forgotten data, its
clients draw from another seed. The seeds follow from the run's own and from how often it was begun before,
which is recorded before any client is asked; so the whole history can be repeated, but no seed in it repeats.
"""

from app.forgettings.folder import outermost
from strategies.core.seeds import derive_seed
from strategies.runs import files
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import append_line, read_lines

STARTS = "masked-starts.jsonl"
"""Name of the file that says which trainings of hidden sums were begun, in the outermost run's folder."""


def fresh_seed(folder: RunFolder, seed: int, what: str, *, first: bool = False) -> int:
    """Return the seed of the training that begins now, and record that it begins.

    The count is shared with the runs that this one lies in, or that lie in it. `what` says for people what is
    trained. With `first`, it may be the run's own training, which has the run's own `seed` the first time.

    Raises
    ------
    LetheError
        If the disk does not take it; no client may be asked then.
    """
    path = outermost(folder).path / STARTS
    with files.locked(path):
        before = [int(line["number"]) for line in read_lines(path) if line["of-seed"] == seed]
        number = max(before, default=-1 if first else 0) + 1
        taken = derive_seed(seed, "start", number) if number else seed
        append_line(path, {"of-seed": seed, "number": number, "seed": taken, "what": what})
    return taken
