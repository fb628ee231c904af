"""The parts of strategies.personal."""
