"""The parts of strategies.pruned_dp."""
