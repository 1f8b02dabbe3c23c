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

        def before_instantiate_classes(self) -> None:
            """Only fit keeps a log, and its configuration in it."""
            if command != "fit":
                self.config.trainer.logger = False
            if self.config.trainer.logger is False:
                self.save_config_callback = None

    try:
        cli = Cli(list(arguments))
        if command != "fit" and not cli.config.ckpt_path:
            raise ValueError("needs --ckpt_path, a checkpoint that fit has written")
    except (ArgumentError, ValueError) as error:
        raise wrong_setting(program, " ".join(str(error).split())) from error
    return partial(_run_lightning, cli, command)


def _run_lightning(cli: "LightningCLI", command: str) -> None:
    """Call the trainer; nothing in a checkpoint is unpickled.

    Raises:
        ValueError: fit would write over another run, or into a dataset; or the checkpoint does not fit the
            configuration.
    """
    from pipeline.checked_files import refuse_inside_dataset
    from training.tasks import check_checkpoint

    trainer, checkpoint = cli.trainer, cli.config.ckpt_path
    root = Path(trainer.default_root_dir)
    refuse_inside_dataset(root)
    state = check_checkpoint(Path(checkpoint), cli.model) if checkpoint else None
    if command == "fit":
        _keep_earlier_runs(cli, root)
        if state is not None and 0 <= (-1 if trainer.max_epochs is None else trainer.max_epochs) <= state["epoch"] + 1:
            if trainer.is_global_zero:
                print(f"Nothing to do: all {trainer.max_epochs} epochs of {checkpoint} are done.")
            return
    _shorten_bar(cli)
    run = getattr(trainer, command)
    try:
        run(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to an interrupt
        if trainer.progress_bar_callback is not None:
            print(flush=True)  # the bar has not ended its line
        last = root / "checkpoints" / "last.ckpt"
        how = f"go on by --ckpt_path {last}" if last.exists() else "there is no checkpoint yet, so start again"
        print(f"python -m training: interrupted{f'; {how}' if command == 'fit' else ''}", file=sys.stderr)
        raise SystemExit(130) from stop
    if trainer.is_global_zero:
        _say_what_was_written(cli, command, root)


def _keep_earlier_runs(cli: "LightningCLI", root: Path) -> None:
    """Give checkpoints their folder, and refuse to fit where something of an earlier run would be written over.

    Raises:
        ValueError: the folder holds the checkpoints of another run, or the log's folder the log of one.
    """
    from pytorch_lightning.callbacks import ModelCheckpoint

    folder, start = root / "checkpoints", cli.config.ckpt_path
    if any(folder.glob("*.ckpt")) and not (start and Path(start).resolve().parent == folder.resolve()):
        raise ValueError(
            f"{root} holds the checkpoints of an earlier run; go on with it by --ckpt_path {folder / 'last.ckpt'}, "
            "or choose another --trainer.default_root_dir"
        )
    log = Path(cli.trainer.log_dir or root) if cli.trainer.loggers else None
    if log is not None and any((log / name).exists() for name in ("config.yaml", "metrics.csv")):
        raise ValueError(
            f"{log} holds the log of an earlier run; leave out trainer.logger.init_args.version, so that every run "
            "gets a folder of its own"
        )
    for callback in cli.trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder)  # Lightning would put them beside the log


def _shorten_bar(cli: "LightningCLI") -> None:
    """Leave the number of the log out of the bar, so that the scores fit into 80 columns."""
    bar = cli.trainer.progress_bar_callback
    if bar is not None:
        get_metrics = bar.get_metrics
        bar.get_metrics = lambda trainer, pl_module: {
            name: value for name, value in get_metrics(trainer, pl_module).items() if name != "v_num"
        }


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
        "Checkpoint directory .* exists and is not empty",  # of the run that goes on; others are refused
        "The dirpath has changed",  # scores may go elsewhere than checkpoints
        ".*isinstance.treespec, LeafSpec",  # Lightning's own use of torch
        ".*torch.jit.script",  # PyG's
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    run_command("training", read_command(sys.argv[1:]))
