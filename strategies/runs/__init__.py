"""The parts of strategies.runs."""
