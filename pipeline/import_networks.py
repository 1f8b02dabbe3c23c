"""Turn networks that others trained into a parameter-graph dataset, or add them to one.

    python -m pipeline import checkpoints --out graphs.zarr --networks.factory models:cnn --networks.input 1,1,28,28
    python -m pipeline import cifar10 --out graphs.zarr --format small-cnn-zoo

Reads   a folder of state dicts        (pipeline.import_state_dicts)
        or of the Small CNN Zoo        (pipeline.small_cnn_zoo)
Writes  the dataset, format "metazoo-graphs" version 1  (docs/stores.md); what could not be taken is a table in it

No code of a file is ever run. The command may be repeated after any failure, as `python -m pipeline graphs` may be.
"""

from typing import Literal

from pipeline.build_graphs import Wanted, add, make
from pipeline.cluster import Machine
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_source import GraphSource
from pipeline.import_state_dicts import StateDicts, state_dict_source
from pipeline.places import Place, check_reachable, place
from pipeline.small_cnn_zoo import small_cnn_source

SHOWN_REFUSALS = 5


def import_networks(
    folder: str | Place,
    out: str | Place,
    format: Literal["state-dicts", "small-cnn-zoo"] = "state-dicts",  # noqa: A002  # the name of the flag
    networks: StateDicts | None = None,
    dataset: DatasetSpec = DatasetSpec(),
    duplicates: Literal["leave out", "keep"] = "leave out",
    append: bool = False,
    machine: Machine = Machine(),
) -> None:
    """Make a parameter-graph dataset of networks that others trained.

    Args:
        folder: where the files are: a folder, or s3://bucket/folder.
        out: the dataset's folder, or s3://bucket/folder.
        format: state-dicts: a file for each network, of torch or safetensors. small-cnn-zoo: weights.npy and
            metrics.csv.gz of Unterthiner et al. 2020.
        networks: what the files of state-dicts are.
        dataset: what the dataset is, besides its graphs; not with --append, since it is there already.
        duplicates: of networks with the same template and the same values to the last bit, take the first by graph id
            alone, or all.
        append: add to the dataset at --out, which is there.
        machine: what the job asks of the machines it runs on.
    """
    if (networks is None) == (format == "state-dicts"):
        raise ValueError(
            "state dicts need --networks.factory and --networks.input, to know what networks they are of"
            if networks is None
            else f"--networks says what state dicts are, and the format is {format}; leave it out"
        )
    if append and dataset != DatasetSpec():
        raise ValueError("--dataset says what a new dataset is, and --append adds to one; leave one of the two out")
    where = place(folder)
    check_reachable(where)
    source = read(where, networks, machine)
    report(source)
    wanted = Wanted(
        sources=dict(source.sources),
        selection={"duplicates": duplicates},
        source=lambda: source,
        duplicates=duplicates,
    )
    if append:
        add(place(out), wanted, machine)
    else:
        make(place(out), dataset, wanted, machine)


def read(folder: Place, networks: StateDicts | None, machine: Machine) -> GraphSource:
    """The networks of a folder."""
    return small_cnn_source(folder, machine) if networks is None else state_dict_source(folder, networks, machine)


def report(source: GraphSource) -> None:
    """Say what could be taken, and the first of what could not."""
    refused = [row for row in source.left_out.to_pylist() if row["reason"] == "refused"]
    print(f"{', '.join(source.sources)}: {source.rows.num_rows:,} networks can be taken, {len(refused):,} are refused")
    for row in refused[:SHOWN_REFUSALS]:
        print(f"  {row['detail']}")
    if len(refused) > SHOWN_REFUSALS:
        print(f"  and {len(refused) - SHOWN_REFUSALS:,} more; all are in open_graphs(…).left_out")
