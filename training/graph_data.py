"""Parameter graphs as Lightning's data: the rows of a dataset, labelled by one of its columns, by the epoch plan.

Reads   a dataset of graphs                      (pipeline.graph_store)
Writes  a `LabelledBatch` per micro-batch        (training.epoch_plan says which graphs)

The loaders are made anew each epoch, so that an epoch depends on (dataset, settings, seed, epoch) and nothing else.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.graph_kinds import EdgeKind
from pipeline.graph_store import GraphDataset, open_graphs
from training.encoders import robust_scale
from training.epoch_plan import EpochPlan, MicroBatch, PlanSettings, plan_evaluation, plan_training
from training.graph_batch import GraphBatch, batch_graphs
from training.graph_layout import NUM_EDGE_KINDS, fan_in

GRAPHS_FOR_SCALE = 500
"""Graphs, spread evenly over the training rows, that the value scale is measured on."""


class LabelledBatch:
    """A micro-batch as a task sees it. Not a dataclass: Lightning would take one apart and set its fields."""

    def __init__(
        self,
        graphs: GraphBatch,
        target: Float64[Tensor, " num_graphs"],
        row: Int64[Tensor, " num_graphs"],
        graphs_in_step: int,
    ) -> None:
        self.graphs = graphs
        self.target = target
        self.row = row
        """Row of each graph in the dataset's table."""
        self.graphs_in_step = graphs_in_step
        """Graphs in the whole optimizer step; what the loss is divided by."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "LabelledBatch":
        """The same batch with its tensors on a device; this method is what Lightning looks for."""
        graphs = self.graphs.to(device, non_blocking)
        return LabelledBatch(graphs, self.target.to(device), self.row.to(device), self.graphs_in_step)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStatistics:
    """What a task needs to know of the training rows before it starts."""

    target_mean: float
    target_sd: float
    """1 if the target is constant."""
    value_scale: Float64[np.ndarray, " num_edge_kinds"]
    """Typical ``|w| * sqrt(fan_in)`` of every edge kind."""
    num_steps: int
    """Optimizer steps in the first epoch."""


class LabelledGraphs(Dataset[LabelledBatch]):
    """The micro-batches of one epoch and rank, read as they are asked for."""

    def __init__(
        self, graphs: GraphDataset, target: Float64[np.ndarray, " num_rows"], micro_batches: tuple[MicroBatch, ...]
    ) -> None:
        self.graphs = graphs
        self.target = target
        self.micro_batches = micro_batches

    def __len__(self) -> int:
        return len(self.micro_batches)

    def __getitem__(self, number: int) -> LabelledBatch:
        micro_batch = self.micro_batches[number]
        return LabelledBatch(
            graphs=batch_graphs([self.graphs[row] for row in micro_batch.rows.tolist()]),
            target=torch.from_numpy(self.target[micro_batch.rows]),
            row=torch.from_numpy(micro_batch.rows),
            graphs_in_step=micro_batch.graphs_in_step,
        )


class GraphDataModule(pl.LightningDataModule):
    """The graphs of a dataset, labelled by one of its columns."""

    def __init__(
        self,
        path: str,
        column: str = "test_accuracy",
        epochs: list[int] | None = None,
        split_column: str = "split",
        plan: PlanSettings = PlanSettings(),  # frozen
        seed: int = 0,
    ) -> None:
        """Settings only; nothing is opened before `setup`.

        Args:
            path: a dataset made by ``python -m pipeline graphs``.
            column: the numeric column to predict.
            epochs: checkpoints to use, by their epoch; all if left out.
            split_column: the column that says train, val or test.
            plan: how an epoch is cut into micro-batches and steps.
            seed: of the order of training.
        """
        super().__init__()
        self.path = path
        self.column = column
        self.epochs = epochs
        self.split_column = split_column
        self.plan = plan
        self.seed = seed

    def setup(self, stage: str | None = None) -> None:
        """Open the dataset and choose the rows.

        Raises:
            ValueError: no dataset, no such column, a column that is not numeric, or a split without graphs.
        """
        self.graphs = open_graphs(self.path)
        self.table = self.graphs.table
        self.target = numeric_column(self.table, self.column, self.path)
        self.part = self.table["part"].to_numpy().astype(np.int64)
        self.size = self.table["length"].to_numpy().astype(np.int64)
        self.rows = {split: self._rows_of(split) for split in ("train", "val", "test")}
        if stage == "fit":
            self._share_steps()

    def statistics(self) -> TrainingStatistics:
        """Of the training rows; deterministic."""
        rows = self.rows["train"]
        target = self.target[rows]
        sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), GRAPHS_FOR_SCALE)).astype(np.int64)]
        return TrainingStatistics(
            target_mean=float(target.mean()),
            target_sd=float(target.std()) or 1.0,
            value_scale=value_scale(self.graphs, sample),
            num_steps=self._plan_of("train", epoch=0).num_steps,
        )

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        trainer = self._trainer()
        if getattr(trainer, "reload_dataloaders_every_n_epochs", 0) != 1:  # Lightning does not declare it
            raise ValueError("trainer.reload_dataloaders_every_n_epochs must be 1: every epoch has a plan of its own")
        return self._loader(self._plan_of("train", trainer.current_epoch))

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._plan_of("val"))

    def test_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._plan_of("test"))

    def predict_dataloader(self) -> DataLoader[LabelledBatch]:
        """The test split."""
        return self._loader(self._plan_of("test"))

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None, "Lightning attaches the trainer before it asks for loaders"
        return self.trainer

    def _rows_of(self, split: str) -> Int64[np.ndarray, " num_chosen"]:
        if self.split_column not in self.table.column_names:
            raise ValueError(
                f"{self.path}: no column {self.split_column!r}; found {', '.join(self.table.column_names)}"
            )
        chosen = self.table[self.split_column].to_numpy() == split
        if self.epochs is not None:
            chosen &= np.isin(self.table["epoch"].to_numpy(), self.epochs)
        rows = np.flatnonzero(chosen)
        if len(rows) == 0:
            among = "" if self.epochs is None else f" among the checkpoints of epochs {self.epochs}"
            raise ValueError(
                f"{self.path}: split {split!r} of column {self.split_column!r} has no graphs{among}; "
                "make a larger zoo, or other splits with python -m pipeline graphs"
            )
        missing = rows[~np.isfinite(self.target[rows])]
        if len(missing):
            graph = self.table["graph_id"][int(missing[0])].as_py()
            raise ValueError(
                f"{self.path}: {self.column} of graph {graph} is {self.target[missing[0]]}; expected a number"
            )
        return rows

    def _share_steps(self) -> None:
        """Let every rank accumulate its share of a step."""
        trainer = self._trainer()
        if trainer.accumulate_grad_batches != 1:
            raise ValueError(
                "leave trainer.accumulate_grad_batches alone; set data.plan.micro_batches_per_step instead"
            )
        plan = self._plan_of("train", epoch=0)
        trainer.accumulate_grad_batches = len(plan.of_rank(0, trainer.world_size)) // plan.num_steps

    def _plan_of(self, split: str, epoch: int | None = None) -> EpochPlan:
        if epoch is None:
            return plan_evaluation(self.size, self.rows[split], self.plan)
        return plan_training(self.part, self.size, self.rows[split], self.plan, self.seed, epoch)

    def _loader(self, plan: EpochPlan) -> DataLoader[LabelledBatch]:
        trainer = self._trainer()
        mine = plan.of_rank(trainer.global_rank, trainer.world_size)
        return DataLoader(LabelledGraphs(self.graphs, self.target, mine), batch_size=None, shuffle=False)


def numeric_column(table: pa.Table, column: str, path: str) -> Float64[np.ndarray, " num_rows"]:
    """A column as float64.

    Raises:
        ValueError: the table has no such column, or it is not numeric.
    """
    kinds = {field.name: field.type for field in table.schema}
    numeric = [name for name, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    if column not in numeric:
        found = f"holds {kinds[column]}" if column in kinds else "is not there"
        raise ValueError(f"{path}: column {column!r} {found}; expected a column of numbers: {', '.join(numeric)}")
    return table[column].to_numpy(zero_copy_only=False).astype(np.float64)


def value_scale(graphs: GraphDataset, rows: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " num_edge_kinds"]:
    """The robust size of ``w * sqrt(fan_in)`` of every edge kind over these graphs; 1 for kinds that do not occur or
    carry no values, and for those to come."""
    sizes: dict[EdgeKind, list[Tensor]] = {kind: [] for kind in EdgeKind}
    for row in rows.tolist():
        graph = graphs[row]
        for block in graph.template.blocks:
            if block.kind.carries_value:
                values = graph.values[block.value_index.reshape(-1)]
                sizes[block.kind].append(torch.from_numpy(values * np.float32(fan_in(block) ** 0.5)))
    scale = np.ones(NUM_EDGE_KINDS)
    for kind, mine in sizes.items():
        if mine:
            scale[kind] = robust_scale(torch.cat(mine))
    return scale
