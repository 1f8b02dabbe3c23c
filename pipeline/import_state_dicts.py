"""A folder of other people's state dicts as a source of graphs: one file, one network.

Reads   every file once, where it lies    (pipeline.state_dict_files)
        a table of labels, if there is    (pipeline.text_tables)
Writes  nothing: `GraphSource` says where the values are, and tasks read them there

A file that cannot be taken is a row of what is left out, with the reason; the others are taken. What comes out does not
depend on where the folder lies, or on the order in which files were read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

import torch

from pipeline.cluster import Machine
from pipeline.factory_templates import Refusal, architecture_document, factory_templates, read_arguments
from pipeline.file_labels import Cells, LabelledFiles, LabelTable, identity, label_files, read_path_pattern, refused
from pipeline.file_outcomes import read_all
from pipeline.graph_source import GraphSource, values_sha256
from pipeline.parameter_graph import GraphTemplate
from pipeline.places import Place, is_local, place
from pipeline.source_tables import LeftOut, check_unique, left_out_rows, named_source
from pipeline.state_dict_files import SUFFIXES, StateDictFile
from pipeline.state_dict_rows import NetworkFile, network_rows
from pipeline.template_document import write_document
from pipeline.text_tables import read_text_table
from pipeline.trace_command import DTYPES, find_factory, read_shape


@dataclass(frozen=True, kw_only=True)
class StateDicts:
    """What the files of a folder are."""

    factory: str
    """Module and name of a function that returns the network: package.module:function."""
    input: str
    """Shape of an input of the network, its batch first: 1,1,28,28."""
    dtype: Literal["float32", "int64"] = "float32"
    """Of the input; int64 for numbers of tokens."""
    pattern: str = "**/*"
    """Which files below the folder are taken, of those that end in .pt, .pth, .bin, .ckpt or .safetensors."""
    key: str | None = None
    """Entry of each file that holds the state dict (of Lightning: state_dict); nested entries joined by dots."""
    prefix: str = ""
    """What all names in the state dicts begin with and those of the factory's network do not, such as module."""
    cast: bool = False
    """Cast weights of float16, bfloat16 or float64 to float32; files that have some are left out otherwise."""
    labels: str | None = None
    """Table with what is known of the files: a .csv file with a column file (paths below the folder) or run_id. Columns
    arguments.NAME are given to the factory, as keyword arguments; run_id, unit, epoch, step, losses and accuracies are
    what they are everywhere, and all others become columns."""
    path_pattern: str | None = None
    """Regular expression that is searched for in the path of each file below the folder; its named groups are taken as
    columns of labels are, such as (?P<run_id>train_(?P<image_class>[0-9])_[0-9]+)/."""

    def __post_init__(self) -> None:
        read_shape(self.input)
        read_path_pattern(self.path_pattern)
        path = PurePosixPath(self.pattern)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"pattern is {self.pattern!r}; expected one for files below the folder, such as **/last.pt"
            )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of reading a file: one of the two."""

    values_sha256: str = ""
    error: str = ""


def state_dict_source(folder: Place, networks: StateDicts, machine: Machine) -> GraphSource:
    """The networks of a folder; each file is read once, to know that it fits and what its values are.

    Args:
        machine: what the tasks that read ask for.

    Raises:
        ValueError: there are no files, none can be taken, two give the same graph, or labels or factory are wrong.
    """
    folder = folder.resolve() if is_local(folder) else folder
    find_factory(networks.factory)
    labelled = label_files(
        list_files(folder, networks.pattern), read_labels(networks.labels), read_path_pattern(networks.path_pattern)
    )
    documents, templates = make_templates(networks, labelled)
    files, left_out = known_files(folder, networks, labelled.cells, documents, templates)
    left_out += labelled.left_out
    taken: list[NetworkFile] = []
    for file, outcome in zip(files, read_all([file.values for file in files], read_outcome, machine), strict=True):
        if outcome.error:
            left_out.append(LeftOut(graph_id=file.graph_id, reason="refused", detail=f"{file.path}: {outcome.error}"))
        else:
            taken.append(replace(file, values_sha256=outcome.values_sha256))
    if not taken:
        first = min(row.detail for row in left_out)
        raise ValueError(f"{folder}: none of its files can be taken; the first of {len(left_out)}: {first}")
    rows = network_rows(taken, labelled.cells, networks.factory.rpartition(":")[2])
    refusals = left_out_rows(left_out)
    used = {file.template.digest: file.template for file in taken}
    return GraphSource(
        sources=named_source(folder, rows, refusals),
        rows=rows,
        left_out=refusals,
        documents={digest: write_document(template) for digest, template in used.items()},
        files=tuple(file.values for file in taken),
    )


def list_files(folder: Place, pattern: str) -> list[str]:
    """The paths below the folder of what may be state dicts, in their order; folders of such a name among them.

    Raises:
        ValueError: there is no such folder, the pattern is none, or nothing is found.
    """
    try:
        paths = [path for path in folder.glob(pattern) if path.suffix in SUFFIXES]
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"pattern is {pattern!r}: {error}; expected one such as **/*.pt") from error
    found = {str(path).removeprefix(str(folder)).lstrip("/") for path in paths}
    if not found:
        what = (
            f"nothing of the pattern {pattern!r} ends in {', '.join(SUFFIXES)}" if folder.is_dir() else "no such folder"
        )
        raise ValueError(f"{folder}: {what}; give the folder that holds the state dicts")
    return sorted(found)


def read_labels(path: str | None) -> LabelTable | None:
    """The table of labels.

    Raises:
        ValueError: it cannot be read, or does not say which rows belong to which files.
    """
    if path is None:
        return None
    return LabelTable(name=place(path).name, columns=read_text_table(place(path)))


def make_templates(
    networks: StateDicts, labelled: LabelledFiles
) -> tuple[dict[str, str], dict[str, GraphTemplate | Refusal]]:
    """The architecture of every file, and the template of every architecture.

    Raises:
        ValueError: nothing is known of any file, or no architecture has a template.
    """
    if not labelled.cells:
        first = min(row.detail for row in labelled.left_out)
        raise ValueError(f"none of the {len(labelled.left_out)} files can be taken; the first: {first}")
    shape = read_shape(networks.input)
    arguments = read_arguments(list(labelled.cells.values()))
    documents = [architecture_document(networks.factory, given, shape[1:]) for given in arguments]
    example = torch.zeros(shape, dtype=DTYPES[networks.dtype])
    sets = dict(sorted(zip(documents, arguments, strict=True), key=lambda pair: pair[0]))
    return dict(zip(labelled.cells, documents, strict=True)), factory_templates(networks.factory, sets, example)


def known_files(
    folder: Place,
    networks: StateDicts,
    cells: Mapping[str, Cells],
    documents: Mapping[str, str],
    templates: Mapping[str, GraphTemplate | Refusal],
) -> tuple[list[NetworkFile], list[LeftOut]]:
    """The files that are worth reading, and those whose architecture has no template.

    Raises:
        ValueError: two files give the same graph.
    """
    files: list[NetworkFile] = []
    left_out: list[LeftOut] = []
    for path, known in cells.items():
        run_id, _, epoch = identity(path, known)
        template = templates[documents[path]]
        if isinstance(template, Refusal):
            left_out.append(refused(run_id, epoch, f"{path}: {template.reason}"))
            continue
        values = StateDictFile(
            path=folder / path,
            key=networks.key,
            prefix=networks.prefix,
            cast=networks.cast,
            tensors=template.tensors,
            integers=template.integers,
        )
        files.append(
            NetworkFile(
                path=path,
                graph_id=f"{run_id}@{epoch}",
                architecture=documents[path],
                template=template,
                values=values,
            )
        )
    check_unique([file.graph_id for file in files], [file.path for file in files])
    return files, left_out


def read_outcome(file: StateDictFile) -> Outcome:
    """The digest of the values of a file, or why it has none."""
    try:
        return Outcome(values_sha256=values_sha256(file.read()))
    except ValueError as error:
        return Outcome(error=str(error).removeprefix(f"{file.path}: "))  # where the folder lies is no part of it
