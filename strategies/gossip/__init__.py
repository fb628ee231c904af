"""The parts of strategies.gossip."""
