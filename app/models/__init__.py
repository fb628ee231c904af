"""The models that are built in."""

from app.models.built_in import build_model

__all__ = ["build_model"]
