"""The update log, under a name that stays; see `strategies.log.update_log`."""

from strategies.log.update_log import UpdateLog

__all__ = ["UpdateLog"]
