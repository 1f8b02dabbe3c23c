"""The rows of a zoo's table: one for each run and checkpoint, of two kinds of zoos (docs/stores.md).

Comes in    checkpoints, as trainers give them
Goes out    rows, as plain values, and the schemas of both kinds
"""

from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from pipeline.architectures import Initialisation
from pipeline.inr_zoo import InrConfiguration, Start
from pipeline.loop_trainer import Checkpoint
from pipeline.network_parts import Activation
from pipeline.siren_trainer import FittedNetwork
from pipeline.zoo import Configuration, Optimizer

COLUMN_TYPES = {
    Optimizer: pa.string(),
    Initialisation: pa.string(),
    Activation: pa.string(),
    Start: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
}


def columns_of(configuration: type) -> list[tuple[str, pa.DataType]]:
    """A column for each field of a configuration."""
    return [(f"config.{field.name}", COLUMN_TYPES[field.type]) for field in fields(configuration)]


COMMON_COLUMNS = [
    ("run_id", pa.string()),
    ("unit", pa.string()),
    ("run_index", pa.int64()),
    ("checkpoint", pa.int32()),
    ("epoch", pa.int32()),
    ("step", pa.int64()),
    ("status", pa.string()),
    ("offset", pa.int64()),
    ("length", pa.int64()),
    ("train_loss", pa.float64()),
    ("train_accuracy", pa.float64()),
    ("test_loss", pa.float64()),
    ("test_accuracy", pa.float64()),
    ("architecture", pa.string()),
]
INR_COLUMNS = {"image": pa.int64(), "image_class": pa.int64(), "fit": pa.int64(), "psnr": pa.float64()}
"""Of implicit networks, beside the common ones."""
ROW_SCHEMA = pa.schema([*COMMON_COLUMNS, *columns_of(Configuration)])
"""Of networks that classify images."""
INR_SCHEMA = pa.schema([*COMMON_COLUMNS, *INR_COLUMNS.items(), *columns_of(InrConfiguration)])
"""Of implicit networks."""


def row(found: Checkpoint | FittedNetwork, offset: int) -> dict[str, Any]:
    """A row of the table; its values start at ``offset``."""
    run = found.run
    return {
        "run_id": run.run_id,
        "run_index": run.run_index,
        "step": found.step,
        "status": found.status,
        "offset": offset,
        "length": len(found.values),
        "architecture": run.architecture.document(),
        **{f"config.{field.name}": getattr(run.config, field.name) for field in fields(run.config)},
        **(classifier_columns(found) if isinstance(found, Checkpoint) else inr_columns(found)),
    }


def classifier_columns(found: Checkpoint) -> dict[str, Any]:
    """What only networks that classify images have."""
    return {
        "unit": found.run.run_id,
        "checkpoint": found.checkpoint,
        "epoch": found.run.checkpoint_epochs[found.checkpoint],
        "train_loss": found.train_loss,
        "train_accuracy": found.train_accuracy,
        "test_loss": found.test_loss,
        "test_accuracy": found.test_accuracy,
    }


def inr_columns(found: FittedNetwork) -> dict[str, Any]:
    """What only implicit networks have; every step sees the whole image, so it is an epoch."""
    return {
        "unit": found.run.image_name,
        "checkpoint": 0,
        "epoch": found.step,
        "train_loss": found.loss,
        **dict.fromkeys(("train_accuracy", "test_loss", "test_accuracy"), np.nan),
        "image": found.run.image,
        "image_class": found.image_class,
        "fit": found.run.fit,
        "psnr": found.psnr,
    }


def answers(found: Checkpoint | FittedNetwork) -> Bool[np.ndarray, " num_tested"]:
    """Which test images it classifies correctly."""
    return found.correct if isinstance(found, Checkpoint) else np.zeros(0, dtype=bool)
