"""What metanetworks are trained to do, as Lightning modules.

Reads   `LabelledBatch`es                (training.graph_data)
Writes  scores to Lightning's loggers, predictions through `WritePredictions`, checkpoints that load with
``weights_only=True``
"""

import math
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from training.gmn import GraphMetanetwork, GraphMetanetworkSettings
from training.graph_data import GraphDataModule, LabelledBatch
from training.metrics import kendall_tau, r_squared
from training.predictions import FILE_NAME, Prediction, write_predictions

NO_CHECKPOINT = "not a checkpoint that python -m training fit wrote"


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW with linear warm-up and cosine decay to zero over the whole training."""

    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.warmup_steps < 0:
            raise ValueError(f"{self}: learning_rate must be positive, the others not negative")


class PredictColumn(pl.LightningModule):
    """Predict a numeric column of the dataset from the parameter graph, by least squares on the standardised column."""

    target_mean: Tensor
    target_sd: Tensor

    def __init__(
        self,
        network: GraphMetanetworkSettings = GraphMetanetworkSettings(),  # frozen
        optimizer: OptimizerSettings = OptimizerSettings(),  # frozen
    ) -> None:
        """Settings of the network and of its training; both are kept in checkpoints.

        Args:
            network: shape of the graph metanetwork.
            optimizer: how it is trained.
        """
        super().__init__()
        self.save_hyperparameters({"network": asdict(network), "optimizer": asdict(optimizer)})
        self.settings = optimizer
        self.network = GraphMetanetwork(network)
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_sd", torch.ones(()))
        self.evaluated: list[tuple[Tensor, Tensor, Tensor]] = []

    def setup(self, stage: str) -> None:
        """Before training, take scales from the training rows; otherwise they come from the checkpoint."""
        if stage == "fit":
            data = self._data()
            statistics = data.statistics()
            self.target_mean.fill_(statistics.target_mean)
            self.target_sd.fill_(statistics.target_sd)
            self.network.edge_encoder.value_scale.copy_(torch.from_numpy(statistics.value_scale))
            self.num_steps = statistics.num_steps * (self.trainer.max_epochs or 1)

    def forward(self, batch: LabelledBatch) -> Float[Tensor, " num_graphs"]:
        """Predictions in the column's own units."""
        return self.network(batch.graphs)[:, 0] * self.target_sd + self.target_mean

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        num_graphs = batch.graphs.num_graphs
        error = (self(batch) - batch.target.to(self.target_sd.dtype)) / self.target_sd
        squares = error.square().sum()
        self.log(
            "train/loss",
            squares.detach() / max(1, num_graphs),
            on_step=False,
            on_epoch=True,
            batch_size=num_graphs,
            sync_dist=True,
            prog_bar=True,
        )
        if num_graphs == 0:  # every rank must run backward through every parameter
            squares = squares + 0 * sum(parameter.sum() for parameter in self.parameters())
        # Lightning averages over accumulated micro-batches and DDP over ranks; we divide by the graphs of the step.
        return squares * (self.trainer.world_size * self.trainer.accumulate_grad_batches / max(1, batch.graphs_in_step))

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        self.evaluated.append((batch.row, batch.target, self(batch)))

    def test_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        self.evaluated.append((batch.row, batch.target, self(batch)))

    def predict_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        prediction = self(batch)
        self.evaluated.append((batch.row, batch.target, prediction))
        return prediction

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

        def factor(step: int) -> float:
            warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
            return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.num_steps))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def gathered(self) -> list[Prediction]:
        """What was evaluated since the last call, from all ranks, each row once, in the order of rows."""
        mine = [
            torch.cat([part[column].double().cpu() for part in self.evaluated]).numpy()
            if self.evaluated
            else np.empty(0)
            for column in range(3)
        ]
        self.evaluated.clear()
        ranks: list[Any] = [mine]
        if self.trainer.world_size > 1:
            ranks = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, mine)
        row, target, prediction = (np.concatenate(columns) for columns in zip(*ranks, strict=True))
        order = np.argsort(row)
        return [Prediction(row=int(row[i]), target=float(target[i]), prediction=float(prediction[i])) for i in order]

    def _log_scores(self, split: str) -> None:
        predictions = self.gathered()
        target = np.array([one.target for one in predictions])
        prediction = np.array([one.prediction for one in predictions])
        self.log(f"{split}/r_squared", r_squared(target, prediction), prog_bar=True, rank_zero_only=False)
        self.log(f"{split}/kendall_tau", kendall_tau(target, prediction), rank_zero_only=False)

    def _data(self) -> GraphDataModule:
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it
        assert isinstance(data, GraphDataModule)
        return data


class WritePredictions(pl.Callback):
    """After ``predict``, one parquet file ``predictions.parquet`` in the trainer's folder: see
    `training.predictions`."""

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PredictColumn)
        predictions = pl_module.gathered()
        if trainer.is_global_zero:
            data = pl_module._data()
            path = Path(trainer.default_root_dir) / FILE_NAME
            write_predictions(path, data.table, data.column, "gmn", predictions)


def load_task(path: Path) -> PredictColumn:
    """The trained task of a checkpoint, in eval mode on the CPU; nothing is unpickled.

    Raises:
        ValueError: no such file, or not a checkpoint of this task.
    """
    checkpoint = read_checkpoint(path)
    try:
        settings = checkpoint["hyper_parameters"]
        task = PredictColumn(
            network=GraphMetanetworkSettings(**settings["network"]),
            optimizer=OptimizerSettings(**settings["optimizer"]),
        )
        task.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: {NO_CHECKPOINT}: {str(error).strip().splitlines()[0]}") from error
    return task.eval()


def check_checkpoint(path: Path, task: PredictColumn) -> dict[str, Any]:
    """The content of a checkpoint, unless a configured task cannot go on from it.

    Raises:
        ValueError: it is no checkpoint, or of a network of another shape.
    """
    checkpoint = read_checkpoint(path)
    if "pytorch-lightning_version" not in checkpoint:
        raise ValueError(f"{path}: {NO_CHECKPOINT}: Lightning's own entries are missing")
    found = checkpoint["hyper_parameters"]["network"]
    if found != asdict(task.network.settings):
        raise ValueError(f"{path}: of a network {found}; the configuration asks for {asdict(task.network.settings)}")
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint that ``fit`` wrote, tensors and plain values alone.

    Raises:
        ValueError: no such file, or not such a checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; python -m training fit writes them below its default_root_dir")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {NO_CHECKPOINT}: it does not hold tensors and plain values alone") from error
    except (EOFError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else "it ends early"
        raise ValueError(f"{path}: {NO_CHECKPOINT}: {reason}") from error
    for key in ("hyper_parameters", "state_dict"):
        if not isinstance(checkpoint, dict) or key not in checkpoint:
            raise ValueError(f"{path}: {NO_CHECKPOINT}: it has no {key}")
    if not {"network", "optimizer"} <= set(checkpoint["hyper_parameters"]):
        raise ValueError(f"{path}: {NO_CHECKPOINT}: it is of another task")
    return checkpoint
