"""The audit: how far models are from one that never saw the forgotten data."""

from unlearning.audit.audit import AuditedModel, AuditReport, audit

__all__ = ["AuditReport", "AuditedModel", "audit"]
