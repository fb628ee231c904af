"""The parts of strategies.coded_gd."""
