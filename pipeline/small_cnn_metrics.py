"""The table beside the weights of the Small CNN Zoo: what every checkpoint is.

Reads   metrics.csv.gz, as it was published    `read_metrics`
Writes  nothing

The column ``step`` is an epoch: 0, 1, 2, 3, 20, 40, 60, 80 and 86 of 86, and another one where a run broke off.
"""

from collections.abc import Sequence

from pipeline.places import Place
from pipeline.text_tables import TextTable, label, read_text_table, whole_number

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
COLUMNS = ("config.activation", "modeldir", "step", *METRICS)
"""Those that must be there; and one of the next two."""
DATASET_COLUMN, IMAGE_SIZE_COLUMN = "config.dataset", "config.image_size"
IMAGE_SIZE = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32, "svhn": 32, "svhn_cropped": 32}
"""Pixels across, by the name of the data set; all are grey."""
SMALLEST = 15
"""Pixels across that three convolutions of stride 2 leave something of."""
KNOWN = {"config.activation": ("relu", "tanh"), "config.dataset": tuple(IMAGE_SIZE)}
"""All that may stand in a column; these decide what the network computes."""


def read_metrics(path: Place, num_rows: int) -> dict[str, list[str]]:
    """The table, every cell that decides something checked.

    Args:
        num_rows: of the weights.

    Raises:
        ValueError: it cannot be read, has another number of rows, misses a column, or a cell is wrong.
    """
    metrics = read_text_table(path)
    size = DATASET_COLUMN if DATASET_COLUMN in metrics else IMAGE_SIZE_COLUMN
    if missing := [name for name in COLUMNS if name not in metrics]:
        raise ValueError(f"{path}: has no column {missing[0]!r}; expected {', '.join(COLUMNS)}")
    if size not in metrics:
        raise ValueError(f"{path}: has no column {DATASET_COLUMN!r} and no {IMAGE_SIZE_COLUMN!r}; expected one of them")
    if (found := len(metrics["step"])) != num_rows:
        raise ValueError(
            f"{path}: has {found:,} rows, and weights.npy has {num_rows:,}; a row of one is a row of the other, so "
            "take both from the same archive"
        )
    for name in (*COLUMNS, size):
        wrong = {cell: reason for cell in set(metrics[name]) if (reason := _wrong(cell, name))}
        for row, cell in enumerate(metrics[name]):
            if cell in wrong:
                raise ValueError(f"{path}: row {row}: {name} {wrong[cell]}")
    _check_epochs(path, metrics)
    return metrics


def image_sizes(metrics: TextTable) -> list[int]:
    """Pixels across the images of every row."""
    if DATASET_COLUMN in metrics:
        return [IMAGE_SIZE[dataset] for dataset in metrics[DATASET_COLUMN]]
    return [whole_number(size, below=1025) for size in metrics[IMAGE_SIZE_COLUMN]]


def name_runs(modeldirs: Sequence[str]) -> list[str]:
    """The last part of each run's folder where that tells all runs apart, else the whole."""
    whole = {modeldir: modeldir.strip().rstrip("/") for modeldir in modeldirs}
    last = {modeldir: path.rpartition("/")[2] for modeldir, path in whole.items()}
    names = last if len(set(last.values())) == len(set(whole.values())) else whole
    return [names[modeldir] for modeldir in modeldirs]


def _wrong(cell: str, name: str) -> str | None:
    """What is wrong with a cell."""
    try:
        if name in KNOWN and cell not in KNOWN[name]:
            return f"is {cell!r}; expected one of {', '.join(KNOWN[name])}"
        if name == "modeldir" and not cell.strip("/ "):
            return "is empty; expected the folder of the run"
        if name == "step":
            whole_number(cell, below=2**31)
        elif name == IMAGE_SIZE_COLUMN:
            if whole_number(cell, below=1025) < SMALLEST:
                return f"is {cell}; expected at least {SMALLEST} pixels across"
        elif name in METRICS:
            label(cell)
    except ValueError as error:
        return str(error)
    return None


def _check_epochs(path: Place, metrics: TextTable) -> None:
    """Refuse a table whose column ``step`` counts something else than epochs."""
    for row, (step, epochs) in enumerate(zip(metrics["step"], metrics.get("config.epochs", ()), strict=False)):
        if epochs.isdecimal() and int(step) > int(epochs):
            raise ValueError(
                f"{path}: row {row}: step is {step}, beyond the {epochs} epochs of config.epochs; expected the epoch "
                "of the checkpoint, as in the published table"
            )
