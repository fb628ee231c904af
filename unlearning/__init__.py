"""Forgetting: requests, one file per method, and the audit of what is left."""
