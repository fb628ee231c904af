"""The data: where they come from, how they are split, and which client holds which."""

from app.data.adapting import Adapting, as_examples, columns_in, opened_folder, texts_in
from app.data.clients import clients_in
from app.data.columns import Columns
from app.data.labels import class_of, sorted_names
from app.data.load import (
    ServerData,
    client_id_of,
    load_client_data,
    load_client_test,
    load_server_data,
    own_data,
    own_path_of,
    same_for_all,
)
from app.data.partition import partition_indices, partitioned
from app.data.pool import numbered
from app.data.public import UNLABELLED, OwnPublic, PublicData, load_public
from app.data.terms import Terms

__all__ = [
    "UNLABELLED",
    "Adapting",
    "Columns",
    "OwnPublic",
    "PublicData",
    "ServerData",
    "Terms",
    "as_examples",
    "class_of",
    "client_id_of",
    "clients_in",
    "columns_in",
    "load_client_data",
    "load_client_test",
    "load_public",
    "load_server_data",
    "numbered",
    "opened_folder",
    "own_data",
    "own_path_of",
    "partition_indices",
    "partitioned",
    "same_for_all",
    "sorted_names",
    "texts_in",
]
