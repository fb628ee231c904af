"""Which client of a run looks bad, from its update log and the server's own data."""
