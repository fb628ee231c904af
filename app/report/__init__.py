"""The report of a run: one HTML file that needs nothing else."""

from app.report.page import write_report
from app.report.triggered import TriggeredImage, read_triggered, write_triggered

__all__ = ["TriggeredImage", "read_triggered", "write_report", "write_triggered"]
