"""The keys of messages and the layout of models, under a name that stays; see `strategies.core.wire`."""

from strategies.core.wire import *  # noqa: F403
