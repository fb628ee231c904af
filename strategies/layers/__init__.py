"""The parts of strategies.layers."""
