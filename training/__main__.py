"""The command line of ``python -m training``: LightningCLI for the metanetwork, and the baselines beside it."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command_line import Command, choose_command, read_settings, run_command, wrong_setting

if TYPE_CHECKING:
    from pytorch_lightning.cli import LightningCLI

PURPOSE = "Graph metanetworks: networks that learn from the parameter graphs of others."
BASELINES = Command(
    function="training.baselines:baselines", sentence="fit simpler predictors on the same rows, and write theirs"
)
COMMANDS = {
    "fit": "train a metanetwork on a dataset of parameter graphs",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write a checkpoint's predictions for the test split",
    "baselines": BASELINES.sentence,
}


def read_command(arguments: Sequence[str]) -> Callable[[], None]:
    """The function asked for, its settings read and checked, ready to be called.

    Raises:
        SystemExit: help was asked for (code 0), or a setting is wrong (code 2, after one line that says which).
    """
    name, rest = choose_command("training", PURPOSE, COMMANDS, arguments)
    program = f"python -m training {name}"
    return read_settings(program, BASELINES, rest) if name == "baselines" else _read_lightning(program, name, rest)


def _read_lightning(program: str, command: str, arguments: Sequence[str]) -> Callable[[], None]:
    from jsonargparse import ArgumentError, set_parsing_settings
    from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

    from training.graph_data import GraphDataModule
    from training.tasks import PredictColumn, WritePredictions

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    _silence()

    class Cli(LightningCLI):
        """One parser for all commands, since they share one configuration file."""

        def __init__(self, args: ArgsType) -> None:
            super().__init__(
                PredictColumn,
                GraphDataModule,
                args=args,
                run=False,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},
                parser_kwargs={
                    "prog": program,
                    "description": COMMANDS[command],
                    "exit_on_error": False,
                    "allow_abbrev": False,
                },
                trainer_defaults={
                    "reload_dataloaders_every_n_epochs": 1,
                    "use_distributed_sampler": False,
                    "default_root_dir": "runs/training",
                    "callbacks": [WritePredictions()],
                },
            )

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_argument(
                "--ckpt_path", type=str | None, default=None, help="checkpoint to start from or to score"
            )
            parser.link_arguments("trainer.default_root_dir", "trainer.logger.init_args.save_dir")

    try:
        cli = Cli(list(arguments))
        if command != "fit" and not cli.config.ckpt_path:
            raise ValueError("needs --ckpt_path, a checkpoint that fit has written")
    except (ArgumentError, ValueError) as error:
        raise wrong_setting(program, error) from error
    return partial(_run_lightning, cli, command)


def _run_lightning(cli: "LightningCLI", command: str) -> None:
    """Call the trainer; nothing in a checkpoint is unpickled.

    Raises:
        ValueError: fit would write among the checkpoints of another run, or into a dataset; or the checkpoint does not
            fit the configuration.
    """
    from pipeline.dataset_manifest import refuse_inside_dataset
    from training.tasks import check_checkpoint

    checkpoint, root = cli.config.ckpt_path, Path(cli.trainer.default_root_dir)
    refuse_inside_dataset(root)
    if checkpoint:
        check_checkpoint(Path(checkpoint), cli.model)
    if command == "fit" and not checkpoint and any((root / "checkpoints").glob("*.ckpt")):
        raise ValueError(
            f"{root} holds the checkpoints of an earlier run; go on with it by --ckpt_path "
            f"{root}/checkpoints/last.ckpt, or choose another --trainer.default_root_dir"
        )
    run = getattr(cli.trainer, command)
    try:
        run(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to an interrupt
        last = root / "checkpoints" / "last.ckpt"
        print(
            f"python -m training: interrupted; go on by --ckpt_path {last}" if last.exists() else "interrupted",
            file=sys.stderr,
        )
        raise SystemExit(130) from stop
    if cli.trainer.is_global_zero:
        _say_what_was_written(cli, command, root)


def _say_what_was_written(cli: "LightningCLI", command: str, root: Path) -> None:
    from pytorch_lightning.callbacks import ModelCheckpoint

    saved = cli.trainer.checkpoint_callback
    if command == "fit" and isinstance(saved, ModelCheckpoint) and saved.best_model_score is not None:
        score = f"{saved.monitor} {float(saved.best_model_score):.3f}"
        print(f"wrote {root}: the best checkpoint is {saved.best_model_path}, {score}")
    if command == "predict":
        print(f"wrote {root / 'predictions.parquet'}")


def _silence() -> None:
    """Keep off the terminal what Lightning says of things that are so on purpose."""
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in (
        "LightningCLI's args parameter is intended",  # the arguments are sys.argv's, after the command
        ".*does not have many workers",  # batches are slices of decoded parts
        "The dirpath has changed",  # scores may go elsewhere than checkpoints
        ".*isinstance.treespec, LeafSpec",  # Lightning's own use of torch
        ".*torch.jit.script",  # PyG's
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    run_command("training", read_command(sys.argv[1:]))
