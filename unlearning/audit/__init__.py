"""The parts of unlearning.audit."""
