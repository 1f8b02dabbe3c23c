"""CKA of every layer of every network with every layer of every other: a Ray job.

    python -m analysis cka --representations runs/digits/representations --out runs/digits/cka.parquet

Reads   representations on the same samples, joined by id    (analysis.representation_store)
Writes  one table, a row per cell                            (analysis.cka_table)

A task measures the moments of one pair of networks on one block of samples. A block holds whole units, so that leaving
one out is leaving out independent things. The moments of a pair's blocks add up to its cells and their intervals, which
are kept beside OUT: after any failure the same command goes on with the pairs that are missing.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, reduce
from importlib.metadata import version
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Real

from analysis.cka_table import CELL_COLUMNS, FORMAT, VERSION, CkaTable, parquet_of, read_cka_table, write_cka_table
from analysis.estimates import Estimator, finish, jackknife, null_sd
from analysis.measure import measure
from analysis.moments import Moments, Precision, merge
from analysis.names import counted
from analysis.representation_store import Representation, find_representations
from analysis.samples import SharedSamples, join_samples
from analysis.similarity import narrow, no_finite_row
from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.dataset_manifest import canonical_json
from pipeline.file_records import sha256
from pipeline.parquet_files import read_table
from pipeline.progress import progress_bar
from pipeline.whole_files import write_file

ESTIMATORS: tuple[Estimator, ...] = ("debiased", "biased")
PACKAGES = ("numpy", "pyarrow", "scipy")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How networks are compared."""

    most_blocks: int = 20
    """Blocks of the jackknife, at most; fewer where they would hold less than four units."""
    seed: int = 0
    """Of the dealing of units into blocks; values do not depend on it, standard errors slightly."""
    precision: Precision = "float64"
    """Of the matrix products. float32 is about three times as fast, and moves values by less than 1e-6."""

    def __post_init__(self) -> None:
        if self.most_blocks < 5:
            raise ValueError(f"most_blocks is {self.most_blocks}; expected at least 5, for the sake of the intervals")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A representation, looked through."""

    stored: Representation
    lost: frozenset[str]
    """Layers without a single finite row: their cells have no value, and cost the other layers no sample."""


@dataclass(frozen=True, kw_only=True)
class PairBlock:
    """What a task measures."""

    a: int
    """Network, by its place among all."""
    b: int
    """Network, at ``a`` or after it."""
    block: int

    def __str__(self) -> str:
        return f"{self.block} of networks {self.a} and {self.b}"


def cka(
    representations: Path | list[Path],
    out: Path,
    comparison: Comparison = Comparison(),
    machine: Machine = Machine(),
) -> None:
    """Compare all layers of all pairs of networks, each network with itself too.

    Args:
        representations: folders made by ``python -m analysis represent``, or a folder that holds several.
        out: the table, a Parquet file; replaced if it compares anything else.
        comparison: how the networks are compared.
        machine: what the job asks of the machines it runs on.
    """
    paths = representations if isinstance(representations, list) else [representations]
    networks = [Network(stored=stored, lost=lost_layers(stored)) for stored in find_representations(paths)]
    samples = join_samples([network.stored for network in networks], comparison.most_blocks, comparison.seed)
    description = describe(networks, comparison)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; the table is a file, so give its name: {out / 'cka.parquet'}")
    finished = out.exists() and read_cka_table(out).description == description
    if finished:
        print(f"Nothing to do: {out} compares these networks already.")
    else:
        folder = out.with_name(f"{out.name}.pairs")
        folder.mkdir(parents=True, exist_ok=True)
        pairs = compare(networks, samples, comparison, machine, folder)
        write_cka_table(out, pairs, description)
        shutil.rmtree(folder)
    print("\n".join(summary(read_cka_table(out))))
    if not finished:
        print(f"wrote {out}")


def describe(networks: Sequence[Network], comparison: Comparison) -> dict[str, Any]:
    """What decides the table, and what a reader of it has to know."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "networks": [
            {
                "name": network.stored.network,
                "digest": network.stored.digest,
                "made_of": network.stored.made_of,
                "layers": [asdict(layer) for layer in network.stored.layers],
            }
            for network in networks
        ],
        "comparison": asdict(comparison),
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Of what the numbers come from."""
    return {package: version(package) for package in PACKAGES}


def compare(
    networks: Sequence[Network], samples: SharedSamples, comparison: Comparison, machine: Machine, folder: Path
) -> list[pa.Table]:
    """The cells of every pair, in order. Those in ``folder`` are taken from there; others are made and kept there."""
    pairs = list(combinations_with_replacement(range(len(networks)), 2))
    files = {(a, b): folder / f"{pair_key(networks[a], networks[b], comparison)}.parquet" for a, b in pairs}
    missing = [pair for pair in pairs if not files[pair].exists()]
    tasks = [PairBlock(a=a, b=b, block=block) for a, b in missing for block in range(samples.num_blocks)]
    if tasks:
        total = len(pairs) * samples.num_blocks
        states: dict[tuple[int, int], dict[int, Moments]] = {}
        shared = (list(networks), samples, comparison)
        with cluster(machine), progress_bar("comparing", "blocks", total, total - len(tasks)) as bar:
            for task, state in run_tasks(measure_block, tasks, shared, machine, noun="block"):
                pair = task.a, task.b
                of_pair = states.setdefault(pair, {})
                of_pair[task.block] = state
                if len(of_pair) == samples.num_blocks:
                    blocks = [of_pair[block] for block in range(samples.num_blocks)]
                    cells = pair_cells(networks[task.a], networks[task.b], samples, blocks)
                    write_file(files[pair], parquet_of(cells))
                    del states[pair]
                bar.update()
    return [read_table(files[pair]) for pair in pairs]


def pair_key(a: Network, b: Network, comparison: Comparison) -> str:
    """Names the file of a pair after everything that decides its cells."""
    decides = {
        "a": a.stored.digest,
        "b": b.stored.digest,
        "comparison": asdict(comparison),
        "version": VERSION,
        "packages": package_versions(),
    }
    return sha256(canonical_json(decides).encode())[:32]


def measure_block(
    task: PairBlock, networks: Sequence[Network], samples: SharedSamples, comparison: Comparison
) -> Moments:
    """The moments of two networks on one block of samples. This is the task."""
    chosen = samples.block == task.block
    layers_a, layers_b = (
        [features[samples.rows[place][chosen]] for features in all_features(networks[place])]
        for place in (task.a, task.b)
    )
    return measure(layers_a, layers_b, precision=comparison.precision)


def all_features(network: Network) -> Iterator[Real[np.ndarray, "n _"]]:
    """The layers of a network: as stored, but lost ones as a constant, and ones wider than samples rotated to fewer."""
    stored = network.stored
    for layer in stored.layers:
        if layer.name in network.lost:
            yield np.zeros((stored.num_samples, 1), dtype=np.float32)
        elif layer.width > stored.num_samples:
            yield rotated(stored, layer.name)
        else:
            yield stored.features(layer.name)


def rotated(stored: Representation, layer: str) -> Real[np.ndarray, "n _"]:
    """A wide layer in at most n coordinates: no inner product between samples changes, and so nothing CKA sees."""
    return _rotated(stored.path / f"{layer}.npy", stored.digest)


@lru_cache(maxsize=8)
def _rotated(path: Path, digest: str) -> Real[np.ndarray, "n _"]:
    """Kept for the other blocks that this process measures; ``digest`` tells a file that was replaced."""
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    finite = np.isfinite(features).all(axis=1)
    narrowed = narrow(features[finite].astype(np.float64))
    coordinates = np.full((len(features), narrowed.shape[1]), np.nan)
    coordinates[finite] = narrowed
    return coordinates


def lost_layers(stored: Representation) -> frozenset[str]:
    """Layers of which no row is finite."""
    return frozenset(layer.name for layer in stored.layers if no_finite_row(stored.features(layer.name)))


def pair_cells(a: Network, b: Network, samples: SharedSamples, blocks: Sequence[Moments]) -> pa.Table:
    """The cells of two networks, by both estimators, from the moments of all blocks in their order."""
    total = reduce(merge, blocks)
    shape = La, Lb = len(a.stored.layers), len(b.stored.layers)
    lost = np.logical_or.outer(*([layer.name in side.lost for layer in side.stored.layers] for side in (a, b)))
    # Samples of one unit resemble each other, and then unrelated layers are not spread about 0 as this null has it.
    independent = len(samples.block) == samples.num_units
    parts = []
    for estimator in ESTIMATORS:
        estimate = finish(total, estimator)
        se = low = high = np.full(shape, np.nan)
        if len(blocks) > 1:
            spread = jackknife(total, blocks, estimator)
            se, low, high = spread.se, spread.low, spread.high
        sd = null_sd(total.n) if estimator == "debiased" and independent and total.n else np.nan
        columns: dict[str, Any] = {
            "model_a": [a.stored.network] * (La * Lb),
            "layer_a": np.repeat([layer.name for layer in a.stored.layers], Lb),
            "model_b": [b.stored.network] * (La * Lb),
            "layer_b": np.tile([layer.name for layer in b.stored.layers], La),
            "estimator": [estimator] * (La * Lb),
            "value": estimate.cka,
            "se": se,
            "low": low,
            "high": high,
            "n": [total.n] * (La * Lb),
            "n_units": [samples.num_units] * (La * Lb),
            "d_a": np.repeat([layer.width for layer in a.stored.layers], Lb),
            "d_b": np.tile([layer.width for layer in b.stored.layers], La),
            "n_blocks": [len(blocks)] * (La * Lb),
            "null_sd": np.where(np.isnan(estimate.cka), np.nan, sd),
            "z": estimate.cka / sd,
            "reason": np.where(lost, "no finite row", estimate.reason),
            "n_dropped": [total.n_dropped] * (La * Lb),
            "sample_digest": [samples.digest] * (La * Lb),
        }
        flat = {name: np.asarray(column).reshape(-1) for name, column in columns.items()}
        parts.append(pa.table({field.name: pa.array(flat[field.name]).cast(field.type) for field in CELL_COLUMNS}))
    return pa.concat_tables(parts).cast(CELL_COLUMNS)


def summary(table: CkaTable) -> list[str]:
    """What is in a table, in a few lines of 80 columns."""
    networks, cells = table.networks, table.cells
    n, n_units = cells["n"][0].as_py(), cells["n_units"][0].as_py()
    made_of = f"{counted(len(networks), 'network')} on {counted(n, 'sample')} of {counted(n_units, 'unit')}"
    lines = [f"CKA of {made_of}: {counted(cells.num_rows, 'row')}"]
    for place, a in enumerate(networks):
        for b in networks[place + 1 :]:
            pair = table.pair(a.name, b.name, "debiased")
            same = [
                (pair.value[row, b.layers.index(layer)], layer)
                for row, layer in enumerate(a.layers)
                if layer in b.layers and not np.isnan(pair.value[row, b.layers.index(layer)])
            ]
            if same:
                median, (low, layer) = float(np.median([value for value, _ in same])), min(same)
                lines.append(f"  {a.name} and {b.name}, same layer: median {median:.2f}, lowest {low:.2f} ({layer})")
    reasons = [reason for reason in cells["reason"].to_pylist() if reason]
    return lines + [f"  {reasons.count(reason):,} without a value: {reason}" for reason in sorted(set(reasons))]
