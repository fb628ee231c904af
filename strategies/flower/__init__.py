"""The parts of strategies.flower."""
