"""The run config: its sections, the rules between them, and how it is read."""

from app.config.run_config import RunConfig

__all__ = ["RunConfig"]
