"""Using a model after a run: predictions, and exports that other programs load."""

from app.use.exporting import Export, export
from app.use.predicting import predict, rows_of
from app.use.subject import Subject, open_subject

__all__ = ["Export", "Subject", "export", "open_subject", "predict", "rows_of"]
