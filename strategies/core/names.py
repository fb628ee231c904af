"""Names that stand for several clients; needs no torch."""

EVERYBODY = "all"
"""In place of a client-id, in faults and sums: all clients of the round."""
