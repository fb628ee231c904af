"""The live page of a run: read from its folder alone, served on this machine alone.

Nothing here takes part in the run or loads torch: another process appends events and rounds to files
(see `strategies.runs.journal`), and this one reads what was added.
"""
