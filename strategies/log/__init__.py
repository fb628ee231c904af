"""The parts of the update log: what is kept, how it lies on the disk, and the index of it."""
