"""The parts of strategies.core."""
