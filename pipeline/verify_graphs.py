"""Check everything that a dataset promises.

    python -m pipeline verify runs/digits/graphs.zarr

Reads   every file of the dataset, with several threads
Writes  a report: a line for each promise, and what is wrong under it

The manifest must be right for anything else to be looked at, and the files must be those it names for their content to
be. Within each of these steps all findings are collected, so that one run tells as much as it can.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.checked_files import CheckedFiles, read_manifest
from pipeline.dataset_laws import wrong_graphs_of_part, wrong_names, wrong_splits, wrong_template
from pipeline.dataset_manifest import GROUPS, MANIFEST
from pipeline.dataset_writer import BUILDING, unfinished
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.places import Place, check_reachable, files_below, place
from pipeline.progress import progress_bar

SHOWN_FINDINGS = 20


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Something a dataset promises, and where it does not keep it."""

    text: str
    findings: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """As the report has it."""
        yield f"  {'WRONG' if self.findings else 'ok':<6} {self.text}"
        yield from (f"           {finding}" for finding in self.findings[:SHOWN_FINDINGS])
        if len(self.findings) > SHOWN_FINDINGS:
            yield f"           and {len(self.findings) - SHOWN_FINDINGS:,} more"


def verify(path: str | Place, threads: int | None = None) -> None:
    """Compare every file of a dataset with its manifest, and what is in them with the laws of the format.

    Args:
        path: the dataset's folder, or s3://bucket/folder.
        threads: that read and check at the same time; as many as there are processors if left out. Each holds a part.

    Raises:
        ValueError: something is wrong; the report says what.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    root = place(path)
    check_reachable(root)
    files = CheckedFiles(root, read_manifest(root))
    manifest = files.manifest
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        promises = list(file_promises(files, pool))
        if not any(promise.findings for promise in promises):
            promises += content_promises(root, pool)
    found = sum(len(promise.findings) for promise in promises)
    print(f"{root}\n  digest {manifest.digest}")
    print("\n".join(line for promise in promises for line in promise.lines()))
    if found:
        raise ValueError(f"{root} is not sound, {found} {'finding' if found == 1 else 'findings'}; see above")
    print(
        f"{root} is sound: {manifest.num_graphs:,} graphs in {len(manifest.files) + 1:,} files, "
        f"{manifest.num_bytes / 1e6:,.1f} MB"
    )


def file_promises(files: CheckedFiles, pool: ThreadPoolExecutor) -> Iterator[Promise]:
    """That the files are those the manifest names, and no others."""
    names = sorted(files.manifest.files)

    def compare(name: str) -> list[str]:
        try:
            content = files.read(name)
        except (ValueError, OSError) as error:
            return [str(error)]
        wrong = name in GROUPS and content != GROUPS[name]
        return [f"{files.root / name}: not the description of a zarr group that a dataset has"] if wrong else []

    yield Promise(
        text=f"all {len(names):,} files are there, with the sizes and digests of the manifest",
        findings=tuple(each(compare, names, pool, "comparing", "files")),
    )
    yield Promise(text="no other files are there", findings=tuple(unexpected_files(files.root, set(names))))


def unexpected_files(root: Place, expected: set[str]) -> Iterator[str]:
    """Files that the manifest does not name."""
    others = sorted(set(files_below(root)) - expected - {MANIFEST})
    if any(name.startswith(f"{BUILDING}/") for name in others) and unfinished(root) is not None:
        yield f"{root / BUILDING}: something is being added and not finished; finish it with the same append"
        return
    for name in others:
        in_one_line = str(root / name).encode("unicode_escape").decode() if not name.isprintable() else root / name
        yield f"{in_one_line}: the manifest does not name it; delete it"


def content_promises(root: Place, pool: ThreadPoolExecutor) -> Iterator[Promise]:
    """That what is in the files obeys the laws of the format."""
    opens = "the tables fit the manifest, and name every graph, part and template"
    try:
        dataset = open_graphs(root, parts_in_memory=1)
        _ = dataset.left_out
    except ValueError as error:
        yield Promise(text=opens, findings=(str(error),))
        return
    yield Promise(text=opens, findings=tuple(wrong_names(dataset)))
    splits = [name for name in dataset.table.column_names if name.startswith("split")]
    yield Promise(
        text=f"every unit is on one side of {', '.join(splits)}, as its rule says",
        findings=tuple(wrong_splits(dataset)),
    )
    lengths = lengths_by_template(dataset)
    yield Promise(
        text=f"{len(lengths):,} templates can be read: each value is carried by an edge; their graphs have its length",
        findings=tuple(
            each(
                lambda digest: wrong_template(dataset, digest, *lengths[digest]),
                list(dataset.templates),
                None,  # Python code alone: threads would take turns
                "reading",
                "templates",
            )
        ),
    )
    parts = parts_of(dataset.table)
    yield Promise(
        text=f"{len(parts):,} arrays can be decoded: all values are finite, and those the table has digests of",
        findings=tuple(
            each(lambda part: wrong_graphs_of_part(dataset, part, parts[part]), list(parts), pool, "decoding", "parts")
        ),
    )


def each(
    check: Callable[..., list[str]], items: Sequence[object], pool: ThreadPoolExecutor | None, verb: str, noun: str
) -> Iterator[str]:
    """What a check finds in each of some items, in their order, with a progress bar."""
    with progress_bar(verb, noun, len(items)) as bar:
        for findings in pool.map(check, items) if pool is not None else map(check, items):
            yield from findings
            bar.update()


def lengths_by_template(dataset: GraphDataset) -> dict[str, tuple[set[int], str]]:
    """The lengths of the graphs of every template, and one of these graphs."""
    lengths: dict[str, tuple[set[int], str]] = {}
    columns = (dataset.table[name].to_pylist() for name in ("template", "length", "graph_id"))
    for digest, length, graph_id in zip(*columns, strict=True):
        lengths.setdefault(digest, (set(), graph_id))[0].add(length)
    return lengths


def parts_of(table: pa.Table) -> dict[int, pa.Table]:
    """The rows of every part."""
    part = table["part"].to_numpy()
    starts = np.flatnonzero(np.diff(part, prepend=-1)).tolist()
    ends = [*starts[1:], len(part)]
    return {int(part[start]): table.slice(start, end - start) for start, end in zip(starts, ends, strict=True)}
