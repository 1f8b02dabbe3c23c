"""The command line of ``python -m training``: LightningCLI for the metanetwork, and the baselines beside it."""

import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial

COMMANDS = {
    "fit": "train a metanetwork on a dataset of parameter graphs",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write a checkpoint's predictions for the test split",
    "baselines": "fit simpler predictors on the same rows, and write theirs",
}

USAGE = """usage: python -m training COMMAND ...

Graph metanetworks: networks that learn from the parameter graphs of others.

{commands}

python -m training COMMAND --help   lists the settings of a command
"""


def read_command(arguments: list[str]) -> Callable[[], None]:
    """The function asked for, its settings read and checked, ready to be called."""
    if not arguments or arguments[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:<10} {sentence}" for name, sentence in COMMANDS.items())
        print(USAGE.format(commands=commands), end="")
        raise SystemExit(0 if arguments else 2)
    command, *rest = arguments
    if command not in COMMANDS:
        raise SystemExit(f"python -m training: no command {command!r}; choose from {', '.join(COMMANDS)}")
    return _read_baselines(rest) if command == "baselines" else _read_lightning(command, rest)


def _read_baselines(arguments: list[str]) -> Callable[[], None]:
    from jsonargparse import ArgumentParser, set_parsing_settings

    from training.baselines import baselines

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="python -m training baselines", description="Fit baselines; write their predictions.")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_function_arguments(baselines)
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    return partial(baselines, **{name: value for name, value in settings.items() if name != "config"})


def _read_lightning(command: str, arguments: list[str]) -> Callable[[], None]:
    from jsonargparse import set_parsing_settings
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
                parser_kwargs={"prog": f"python -m training {command}", "description": COMMANDS[command]},
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

    cli = Cli(arguments)
    if command != "fit" and not cli.config.ckpt_path:
        raise SystemExit(f"python -m training {command}: needs --ckpt_path, a checkpoint that fit has written")
    return partial(
        getattr(cli.trainer, command),
        cli.model,
        datamodule=cli.datamodule,
        ckpt_path=cli.config.ckpt_path,
        weights_only=True,
    )


def _silence() -> None:
    """Keep Lightning's advice that does not apply off the terminal: batches are made in the main process, on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")


def main() -> None:
    command = read_command(sys.argv[1:])
    try:
        command()
    except ValueError as error:
        raise SystemExit(f"python -m training: {error}") from error


if __name__ == "__main__":
    main()
