"""Turn finished zoos into a parameter-graph dataset, or add zoos to one: a Ray job of one task per part.

    python -m pipeline graphs --zoo runs/digits/zoo --out runs/digits/graphs.zarr
    python -m pipeline append runs/digits/graphs.zarr --zoo runs/more/zoo

Reads   the chunks of the zoos                          (pipeline.zoo_store)
Writes  the dataset, format "metazoo-graphs" version 1  (docs/stores.md)

Both may be repeated after any failure: they go on with the parts that have no record, and say so where there is nothing
to do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from pipeline.checked_files import read_manifest
from pipeline.cluster import Machine
from pipeline.dataset_manifest import MANIFEST, Manifest, canonical_json
from pipeline.dataset_writer import BUILDING, Task, one_writer, strangers, tidy, unfinished, write_addition
from pipeline.graph_plan import DatasetSpec, Present, plan_dataset
from pipeline.graph_source import GraphSource
from pipeline.graph_sources import Selection, finished_zoos, zoo_names, zoo_source
from pipeline.graph_store import open_graphs
from pipeline.inspect_graphs import size_lines
from pipeline.places import Place, check_reachable, is_local, place
from pipeline.zoo_store import different_fields


def graphs(
    zoo: str | Place | list[str | Place],
    out: str | Place,
    dataset: DatasetSpec = DatasetSpec(),
    selection: Selection = Selection(),
    machine: Machine = Machine(),
) -> None:
    """Make the parameter-graph dataset of finished zoos, or finish making it.

    Args:
        zoo: the folder of a zoo, or of several: [DIR, DIR]; or s3://bucket/folder.
        out: the dataset's folder, or s3://bucket/folder; made if it is not there, continued if it is.
        dataset: what the dataset is, besides its zoos.
        selection: which checkpoints of the zoos become graphs.
        machine: what the job asks of the machines it runs on.
    """
    zoos = finished_zoos(folders(zoo))
    wanted = Wanted(
        sources=zoo_names(zoos),
        selection=selection.document(),
        source=partial(zoo_source, zoos, selection),
        duplicates=selection.duplicates,
    )
    make(place(out), dataset, wanted, machine)


def append(
    path: str | Place,
    zoo: str | Place | list[str | Place],
    selection: Selection = Selection(),
    machine: Machine = Machine(),
) -> None:
    """Add finished zoos to a finished dataset, or finish adding them; what is there stays as it is.

    Args:
        path: the dataset's folder, or s3://bucket/folder.
        zoo: the folder of a zoo, or of several: [DIR, DIR]; or s3://bucket/folder.
        selection: which checkpoints of the zoos become graphs.
        machine: what the job asks of the machines it runs on.
    """
    zoos = finished_zoos(folders(zoo))
    wanted = Wanted(
        sources=zoo_names(zoos),
        selection=selection.document(),
        source=partial(zoo_source, zoos, selection),
        duplicates=selection.duplicates,
    )
    add(place(path), wanted, machine)


def folders(zoo: str | Place | list[str | Place]) -> list[Place]:
    """Where the zoos lie."""
    places = [place(path) for path in (zoo if isinstance(zoo, list) else [zoo])]
    for where in places:
        check_reachable(where)
    return list(places)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be put into a dataset."""

    sources: dict[str, str]
    """As in `GraphSource`, told without reading everything."""
    selection: dict[str, Any]
    """What was asked of them."""
    source: Callable[[], GraphSource]
    """Reads them."""
    duplicates: Literal["leave out", "keep"]

    @property
    def made_of(self) -> dict[str, Any]:
        """As in `pipeline.dataset_manifest.Addition`."""
        return {"sources": self.sources, "selection": self.selection}


def make(out: Place, spec: DatasetSpec, wanted: Wanted, machine: Machine) -> None:
    """Make a dataset, go on making it, or see that it is there."""
    check_reachable(out)
    task = Task(base=None, spec=spec, made_of=wanted.made_of)
    if is_made(out, task) and not has_rest(out):
        print(f"Nothing to do: {out} is finished; python -m pipeline verify compares every file.")
    else:
        with one_writer(out):
            if not is_made(out, task):  # again: before the lock was ours, another process may have begun
                write_addition(
                    out, task, lambda: plan_dataset(wanted.source(), spec, duplicates=wanted.duplicates), machine
                )
            tidy(out)
    print("\n".join(size_lines(open_graphs(out))))


def is_made(out: Place, task: Task) -> bool:
    """Whether the dataset of a task is there and finished.

    Raises:
        ValueError: something else is there, or a dataset with a damaged manifest.
    """
    if is_local(out) and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; a dataset is a folder, so choose another path")
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)  # refuses a damaged one
        first = {"dtype": manifest.dtype, "options": manifest.options, "made_of": manifest.additions[0].made_of}
        refuse_differences(out, first, {name: task.document()[name] for name in first})
        return True
    if (begun := unfinished(out)) is not None:
        refuse_differences(out, begun, task.document())
    elif found := strangers(out):
        raise ValueError(f"{out} is not empty and not a dataset (it holds {found[0]}); choose another folder")
    return False


def refuse_differences(out: Place, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to touch a dataset that is not the one asked for.

    Raises:
        ValueError: saying where they differ.
    """
    if differences := different_fields(found, plain(wanted)):
        raise ValueError(
            f"{out} holds a dataset of other zoos or options; it differs in {'; '.join(differences)}. "
            "Choose another folder, or go back to those"
        )


def add(out: Place, wanted: Wanted, machine: Machine) -> None:
    """Add to a dataset, go on adding, or see that it is there."""
    check_reachable(out)
    if is_added(out, wanted) and not has_rest(out):
        print(f"Nothing to do: {', '.join(wanted.sources)} is in {out}.")
    else:
        read_manifest(out)  # before a lock is laid beside it
        with one_writer(out):
            if not is_added(out, wanted):  # again: before the lock was ours, another process may have added
                base = read_manifest(out)
                spec = spec_of(out, base)
                task = Task(base=base, spec=spec, made_of=wanted.made_of)

                def plan() -> Any:
                    return plan_dataset(wanted.source(), spec, wanted.duplicates, present_in(out))

                write_addition(out, task, plan, machine)
            tidy(out)
    print("\n".join(size_lines(open_graphs(out))))


def is_added(out: Place, wanted: Wanted) -> bool:
    """Whether this very addition is in a dataset.

    Raises:
        ValueError: there is no dataset, or another addition to it was begun and is not finished.
    """
    manifest, made_of = read_manifest(out), plain(wanted.made_of)
    begun = unfinished(out)
    added = [addition.made_of for addition in manifest.additions]
    if begun is not None and begun["made_of"] not in added and begun["made_of"] != made_of:
        raise ValueError(
            f"{out}: {', '.join(begun['made_of']['sources'])} is being added and not finished; finish that first with "
            "the same command"
        )
    return made_of in added


def has_rest(out: Place) -> bool:
    """Whether a writer ended after a dataset was finished and before it had tidied up."""
    if not (out / BUILDING).exists():
        return False
    begun = unfinished(out)
    return begun is None or begun["made_of"] in [addition.made_of for addition in read_manifest(out).additions]


def spec_of(out: Place, manifest: Manifest) -> DatasetSpec:
    """What a dataset is, so that it can be added to.

    Raises:
        ValueError: its manifest does not say.
    """
    try:
        return DatasetSpec.parse(manifest.dtype, manifest.options)
    except ValueError as error:
        raise ValueError(f"{out}: {error}; make a new dataset of everything instead") from error


def present_in(out: Place) -> Present:
    """What is in a dataset, for the plan of what is added."""
    dataset = open_graphs(out)
    columns = {name: dataset.table[name].to_pylist() for name in ("graph_id", "unit", "template", "values_sha256")}
    keys = zip(columns["template"], columns["values_sha256"], columns["graph_id"], strict=True)
    return Present(
        num_parts=len(dataset.files.manifest.parts),
        graph_ids=frozenset(columns["graph_id"]),
        templates=frozenset(dataset.templates),
        graph_of={(template, digest): graph for template, digest, graph in sorted(keys, key=lambda key: key[2])[::-1]},
        sides={
            name: dict(zip(columns["unit"], dataset.table[name].to_pylist(), strict=True))
            for name in dataset.files.manifest.options["splits"]
        },
        columns={
            column.name: column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            for column in dataset.table.schema
        },
    )


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """A document as it is when it comes back from JSON."""
    return json.loads(canonical_json(document))
