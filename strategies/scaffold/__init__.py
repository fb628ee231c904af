"""SCAFFOLD: averaging with control variates."""
