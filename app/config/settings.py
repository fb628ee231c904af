"""Settings of a run's surroundings: the sections ``run``, ``data``, ``model`` and ``request``."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from strategies.core.settings import (
    Settings,
    checked_list,
    checked_side_by_side,
    split_list,
    whole_number_as_text,
)

BUILT_IN_MODELS = ("linear", "mlp", "cnn", "resnet18")
MODEL_LIBRARIES = ("torchvision", "timm")
TRACKERS = ("tensorboard", "mlflow", "wandb")
_MAX_SEED = 2**63 - 1  # a Flower run config carries signed 64-bit integers


class RunSettings(Settings):
    """The run as a whole.

    Attributes
    ----------
    project
        The user's own model, data and task: ``module:object``, such as ``hospital.project:project``; neutral
        empty: all is built in.
    config_file
        TOML file with further keys, read where the run is started; they stand above those of the manifest
        and of ``--run-config``, and below ``--config`` and ``--set``; neutral empty.
    name
        Name of the run's folder: letters, digits, dots, hyphens and underscores; empty chooses one.
    home
        Folder that holds the run folders; ``~`` is the user's home.
    seed
        Seed from which all randomness is derived, at least 0.
    rounds
        Rounds of training, at least 1.
    keep
        Which round's model is the run's: that of the ``last``, or of the ``best`` by ``run.keep-by``.
    keep_by
        The figure that rounds are judged by, on ``data.validation-share``: the task's score such as
        ``accuracy``, ``loss``, or one of its metrics; neutral empty: the headline.
    stop
        Rounds without improvement in that figure after which training ends, at least 0; neutral 0: it ends
        after ``run.rounds``.
    workers
        Processes of the local simulation, at least 0; 0 takes all cores.
    vectorise
        How many clients of the same model the local simulation trains side by side as one batched
        computation: ``off``, a number of at least 2, or ``auto``, which chooses where that is faster; neutral
        ``off``, which trains each by itself.
    device
        ``cpu``, ``cuda``, or ``auto``, which takes ``cuda`` where there is one.
    precision
        In what clients compute the forward passes of local training: ``float32``; ``bf16``, mixed precision
        with bfloat16; ``tf32``, on a GPU only. Parameters and what is sent stay float32; neutral ``float32``.
    round_timeout
        Seconds the server waits for the replies of a round, above 0; in the local simulation, seconds that
        each client has from the moment a worker takes its message.
    evaluate_every
        Rounds from one evaluation to the next, at least 1; the last round is always evaluated.
    workflow
        What the ServerApp does: ``train``, ``resume`` the run that ``request.run`` names, ``continue`` a
        finished one, or what the section ``request`` names on a finished run, or ``analytics``, which asks
        what that section says.
    federated_evaluation
        Whether the clients evaluate as well, on what they hold out (``data.local-test-share``) or on test
        data of their own; they do in any case where the server has no test data, or not all layers
        (``model.batch-norm = "local"``), and nothing is hidden.
    certificate_key
        File with the private key that signs certificates of forgetting; made on first use.
    track
        What keeps the run's figures besides its folder: ``tensorboard``, ``mlflow``, ``wandb``, or several,
        separated by commas; neutral empty.
    """

    project: str = ""
    config_file: str = ""
    name: str = ""
    home: str = Field(default="~/.lethe/runs", min_length=1)
    seed: int = Field(default=0, ge=0, le=_MAX_SEED)
    rounds: int = Field(default=15, ge=1)
    keep: Literal["last", "best"] = "last"
    keep_by: str = ""
    stop: int = Field(default=0, ge=0)
    workers: int = Field(default=0, ge=0)
    vectorise: str = "off"
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    round_timeout: float = Field(default=600.0, gt=0)
    evaluate_every: int = Field(default=1, ge=1)
    workflow: Literal["train", "resume", "continue", "forget", "audit", "analytics"] = "train"
    federated_evaluation: bool = False
    certificate_key: str = Field(default="~/.lethe/keys/certificate.pem", min_length=1)
    track: str = ""

    @property
    def home_path(self) -> Path:
        """``home`` as an absolute path."""
        return Path(self.home).expanduser().absolute()

    @property
    def certificate_key_path(self) -> Path:
        """``certificate_key`` as an absolute path."""
        return Path(self.certificate_key).expanduser().absolute()

    @field_validator("vectorise", mode="before")
    @classmethod
    def _clients_side_by_side(cls, value: object) -> str:
        return checked_side_by_side(value)

    @field_validator("track")
    @classmethod
    def _trackers_are_known(cls, value: str) -> str:
        if not set(split_list(value)) <= set(TRACKERS):
            raise ValueError(f"some of {', '.join(TRACKERS)}, separated by commas")
        return value

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError("1 to 100 letters, digits, '.', '-', '_', beginning with a letter or digit")
        return value


class DataSettings(Settings):
    """The data set, and how it is spread over the clients.

    Attributes
    ----------
    name
        ``digits``, a data set of torchvision such as ``mnist``, ``synthetic:<alpha>,<beta>``, ``npz:<file>``,
        ``folder:<folder>``, ``csv:<file>`` or ``parquet:<file>``.
    root
        Folder of torchvision's data sets; empty takes ``~/.lethe/data``.
    download
        Whether missing files may be fetched.
    clients
        Clients among which the data are partitioned, at least 0; 0 takes the number of nodes.
    classes
        Classes that are used, by name or label, separated by commas, numbered anew in this order; ``4+30``
        makes one class of two kinds; a data set of the user's own may lack some that its clients hold;
        neutral empty: all as they are.
    target
        Column of a table that is to be predicted; a file of its kind needs it.
    targets
        ``classes``: targets are labels, whole numbers or texts; ``numbers``: they stay numbers; ``auto``: as
        the task needs it.
    columns
        JSON file with the schema of a table's columns: kinds, categories, what takes the place of missing
        values; empty: that of the server's own table. Nodes follow the server's.
    size
        Side in pixels that images are scaled to, public and test data as well; neutral 0: as they are.
    lazy
        Whether the images of a folder are decoded batch by batch in place of all before training: ``true``,
        ``false``, or ``auto``: where their pixels take more than 256 MiB.
    partition
        ``iid``, ``dirichlet``, ``shards``, ``pathological``; ``kinds``: one kind of each class of ``classes``
        for a client; ``half-blind``: every second client has no example of the second half of the classes; or
        ``devices``: as the data came, which have them from devices.
    alpha
        ``dirichlet``: concentration, above 0; the larger, the closer to ``iid``.
    shards_per_client
        ``shards``: shards of label-sorted data per client, at least 1.
    classes_per_client
        ``pathological``: classes per client, at least 1.
    per_class
        Training examples of each class that a client keeps of its partition, at least 0; neutral 0: all.
    without
        Client-ids, separated by commas, that take no part in the partition of all; neutral empty: none.
    public
        The server's own data: a share in [0, 1) of the training data, held out before partitioning, or the
        name of a data set; neutral ``0``: none.
    public_classes
        As ``classes``, of the data set that ``public`` names.
    public_labels
        What the labels of that data set are: ``none``, of no use; ``own``, further classes of the model,
        after those of the clients' data; ``shared``, the same classes as theirs.
    public_limit
        Examples of it that are used, at least 0; neutral 0: all.
    test_share
        Share in [0, 1) held out for testing where a data set has no test data of its own; neutral 0.
    validation_share
        Share in [0, 1) of the server's test data by which rounds are judged (``run.keep``, ``run.stop``); no
        other figure is measured on it; neutral 0.
    local_test_share
        Share in [0, 1) of its own examples that a client holds out, is measured on and never trains on;
        neutral 0.
    train_limit
        Training examples used, at least 0; neutral 0: all.
    test_limit
        Test examples used, at least 0; neutral 0: all.
    scale
        ``standard`` brings each column of a table to mean 0 and deviation 1 over all clients' training data,
        in a simulation; ``federated`` takes means and deviations from secure sums, so that no client shows
        its data; neutral ``none``.
    scale_range
        ``federated``: largest absolute value that a column may hold, above 0 and at most 1e9; the larger, the
        coarser are the sums.
    path
        A node's own data in place of a partition: an npz, csv or parquet file, or a folder of images; neutral
        empty.
    folder_of_clients
        Folder with a file or a folder of images for each client, named by its client-id, in place of a
        partition; neutral empty.
    own_classes
        Classes that one client alone holds, beside its part of the others, as ``client=label+label``,
        separated by commas: ``5=8+9``; clients are numbered as their partitions, labels as the run numbers
        them; neutral empty: none.
    seed
        Seed of what is drawn of the data: the partition, the shares that are held out, what an attack
        poisons, which examples are hard; -1: that of the run. With one of its own, runs of several seeds
        train on the same data.
    """

    name: str = Field(default="digits", min_length=1)
    root: str = ""
    download: bool = False
    clients: int = Field(default=0, ge=0)
    classes: str = ""
    target: str = ""
    targets: Literal["auto", "classes", "numbers"] = "auto"
    columns: str = ""
    size: int = Field(default=0, ge=0)
    lazy: Literal["auto", "true", "false"] = "auto"
    partition: Literal["iid", "dirichlet", "shards", "pathological", "kinds", "half-blind", "devices"] = "iid"
    alpha: float = Field(default=0.5, gt=0)
    shards_per_client: int = Field(default=2, ge=1)
    classes_per_client: int = Field(default=2, ge=1)
    per_class: int = Field(default=0, ge=0)
    without: str = ""
    public: str = "0.1"
    public_classes: str = ""
    public_labels: Literal["none", "own", "shared"] = "none"
    public_limit: int = Field(default=0, ge=0)
    test_share: float = Field(default=0.2, ge=0, lt=1)
    validation_share: float = Field(default=0.0, ge=0, lt=1)
    local_test_share: float = Field(default=0.0, ge=0, lt=1)
    train_limit: int = Field(default=0, ge=0)
    test_limit: int = Field(default=0, ge=0)
    scale: Literal["none", "standard", "federated"] = "none"
    scale_range: float = Field(default=1e6, gt=0, le=1e9)
    path: str = ""
    folder_of_clients: str = ""
    own_classes: str = ""
    seed: int = Field(default=-1, ge=-1, le=_MAX_SEED)

    @property
    def class_groups(self) -> tuple[tuple[str, ...], ...]:
        """``classes``, parsed: the original labels of each class; empty: all as they are."""
        return parse_classes(self.classes)

    @property
    def public_class_groups(self) -> tuple[tuple[str, ...], ...]:
        """``public-classes``, parsed."""
        return parse_classes(self.public_classes)

    @property
    def public_share(self) -> float:
        """Share of the training data that the server holds out; 0 when ``public`` names a data set."""
        share = _number(self.public)
        return 0.0 if share is None else share

    @property
    def public_name(self) -> str | None:
        """Data set that ``public`` names, or None when it is a share."""
        return self.public if _number(self.public) is None else None

    @property
    def only_clients_have_data(self) -> bool:
        """Whether this is a simulation whose clients have a file each, and whose server names no data."""
        own_name = self.name != type(self).model_fields["name"].default
        return bool(self.folder_of_clients and self.clients and not own_name)

    @property
    def class_owners(self) -> tuple[tuple[int, int], ...]:
        """``own-classes``, parsed: (label, client that alone holds it)."""
        return parse_owners(self.own_classes)

    @property
    def left_out(self) -> tuple[str, ...]:
        """``without``, parsed."""
        return split_list(self.without)

    _numbers_are_text = field_validator("classes", "public_classes", "without", mode="before")(
        whole_number_as_text
    )
    _without_parses = field_validator("without")(checked_list)

    @field_validator("classes", "public_classes")
    @classmethod
    def _classes_parse(cls, value: str) -> str:
        parse_classes(value)
        return value

    @field_validator("own_classes")
    @classmethod
    def _owners_parse(cls, value: str) -> str:
        parse_owners(value)
        return value

    @field_validator("lazy", mode="before")
    @classmethod
    def _lazy_may_be_a_boolean(cls, value: object) -> object:
        return str(value).lower() if isinstance(value, bool) else value

    @field_validator("public", mode="before")
    @classmethod
    def _public_may_be_a_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("public")
    @classmethod
    def _public_is_share_or_name(cls, value: str) -> str:
        share = _number(value)
        if not value.strip() or (share is not None and not 0 <= share < 1):
            raise ValueError("a share in [0, 1) or the name of a data set")
        return value


def parse_classes(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the labels of each class of a text such as ``3, 4+30``.

    Raises
    ------
    ValueError
        If a label is empty or occurs twice.

    Examples
    --------
    >>> parse_classes("3, 4+30"), parse_classes("dog, cat")
    ((('3',), ('4', '30')), (('dog',), ('cat',)))
    """
    groups = tuple(
        tuple(plain_label(label.strip()) for label in entry.split("+")) for entry in split_list(text)
    )
    labels = [label for group in groups for label in group]
    if not all(labels) or len(set(labels)) < len(labels):
        raise ValueError("labels separated by commas, each once, those of one class joined by '+'")
    return groups


def parse_owners(text: str) -> tuple[tuple[int, int], ...]:
    """Return (label, client) for each label of a text such as ``5=8+9, 7=3``.

    Raises
    ------
    ValueError
        If it is of another form, or names a label twice.

    Examples
    --------
    >>> parse_owners("5=8+9, 7=3")
    ((8, 5), (9, 5), (3, 7))
    """
    found = []
    for entry in split_list(text):
        if re.fullmatch(r"[0-9]{1,9} *= *[0-9]{1,9}( *\+ *[0-9]{1,9})*", entry) is None:
            raise ValueError("client=label+label, separated by commas, such as 5=8+9")
        client, _, labels = entry.partition("=")
        found += [(int(label), int(client)) for label in labels.split("+")]
    if len({label for label, _ in found}) < len(found):
        raise ValueError("client=label+label, separated by commas, each label once")
    return tuple(found)


def is_integer(label: str) -> bool:
    """Say whether a label is a whole number."""
    return re.fullmatch(r"-?[0-9]{1,30}", label) is not None


def plain_label(label: str) -> str:
    """Return the same text for numbers such as ``3`` and ``03``."""
    return str(int(label)) if is_integer(label) else label


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class ModelSettings(Settings):
    """The model that is trained.

    Attributes
    ----------
    name
        ``linear``, ``mlp``, ``cnn``, ``resnet18``, ``torchvision:<name>`` or ``timm:<name>``, without
        weights of theirs.
    weights
        Where the initial weights come from: a file (.safetensors, .npz, .pt), a finished run's name or
        folder, or a forgetting's folder, ``<run>/forget/<name>``; neutral empty: the seed.
    batch_norm
        What becomes of BatchNorm layers: ``refuse``; ``group`` replaces them by GroupNorm; ``local`` leaves
        them with each client (FedBN), so that only clients can evaluate the model; ``recalibrate`` has the
        server set their statistics from its public data.
    width
        ``cnn``: channels of the first convolution, at least 1; the second has twice as many.
    hidden
        ``mlp`` and ``cnn``: units of a hidden layer, at least 1.
    """

    name: str = "cnn"
    weights: str = ""
    batch_norm: Literal["refuse", "group", "local", "recalibrate"] = "refuse"
    width: int = Field(default=32, ge=1)
    hidden: int = Field(default=128, ge=1)

    @property
    def has_local_layers(self) -> bool:
        """Whether a part of the model stays with each client, so that the server has no whole model."""
        return self.batch_norm == "local"

    _numbers_are_text = field_validator("weights", mode="before")(whole_number_as_text)

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, value: str) -> str:
        library, colon, model = value.partition(":")
        named = bool(colon) and library in MODEL_LIBRARIES and re.fullmatch(r"[A-Za-z0-9_.]+", model)
        if value not in BUILT_IN_MODELS and not named:
            of_others = " or ".join(f"{library}:<name>" for library in MODEL_LIBRARIES)
            raise ValueError(f"one of {', '.join(BUILT_IN_MODELS)}, or {of_others}")
        return value


class RequestSettings(Settings):
    """What the ServerApp shall do with a run: forget, or audit, exactly one kind of data; or go on with it.

    Attributes
    ----------
    run
        The run: its name under ``run.home``, or the path of its folder.
    clients
        Client-ids, separated by commas.
    classes
        Labels or names, separated by commas.
    samples
        JSON file on the server, ``{"client-id": [positions in its data]}``.
    after
        Name of an earlier forgetting to go on from; neutral empty: the run's own model.
    rounds
        ``continue``: rounds to train besides those of the run, at least 1.
    """

    run: str = ""
    clients: str = ""
    classes: str = ""
    samples: str = ""
    after: str = ""
    rounds: int = Field(default=10, ge=1)

    _numbers_are_text = field_validator("run", "clients", "classes", mode="before")(whole_number_as_text)
    _lists_parse = field_validator("clients", "classes")(checked_list)
