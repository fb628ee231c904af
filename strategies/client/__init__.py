"""The parts of strategies.client."""
