"""The parts of strategies.one_shot."""
