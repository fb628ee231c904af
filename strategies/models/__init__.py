"""The parts of strategies.models."""
