"""The data: where they come from, how they are split, and which client holds which."""

from app.data.load import (
    UNLABELLED,
    ServerData,
    client_id_of,
    label_counts,
    load_client_data,
    load_server_data,
)
from app.data.partition import partition_indices

__all__ = [
    "UNLABELLED",
    "ServerData",
    "client_id_of",
    "label_counts",
    "load_client_data",
    "load_server_data",
    "partition_indices",
]
