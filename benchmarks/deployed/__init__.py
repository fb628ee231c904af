"""A federation of real processes on this machine: what is measured on it, and what tests do to it."""
