"""The audit: how far models are from one that never saw the forgotten data."""
