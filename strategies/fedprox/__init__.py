"""The parts of strategies.fedprox."""
