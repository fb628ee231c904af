"""The parts of strategies.server."""
