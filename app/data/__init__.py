"""The data: where they come from, how they are split, and which client holds which."""

from app.data.load import (
    ServerData,
    client_id_of,
    label_counts,
    load_client_data,
    load_server_data,
)
from app.data.npz import read_npz
from app.data.partition import partition_indices
from app.data.public import UNLABELLED, PublicData, load_public

__all__ = [
    "UNLABELLED",
    "PublicData",
    "ServerData",
    "client_id_of",
    "label_counts",
    "load_client_data",
    "load_public",
    "load_server_data",
    "partition_indices",
    "read_npz",
]
