"""Values as bytes: how fast parts are written, and how small codecs make trained weights.

Reads   a zoo, for weights that were trained                    `codecs`
Writes  parts and plain files, into a folder that is given      `writing`

One process and one thread. Run by itself it does nothing.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from jaxtyping import Float32
from zarr.codecs import BloscCodec

from benchmarks.measuring import MB, Row, interleaved
from benchmarks.synthetic_datasets import DrawnValues
from benchmarks.zoo_runs import spec
from pipeline.dataset_manifest import CHUNK_FLOATS, SHARD_FLOATS, Dtype
from pipeline.dataset_writer import BUILDING, gather, write_part
from pipeline.graph_plan import PartPlan
from pipeline.graph_source import ValueFile, values_sha256
from pipeline.images import load_images
from pipeline.loop_trainer import train_chunk
from pipeline.places import make_folder
from pipeline.value_arrays import decode_values, encode_values
from pipeline.whole_files import write_file
from pipeline.zoo import expand
from pipeline.zoo_store import finished_chunks, open_zoo, read_chunk

Values = Float32[np.ndarray, " num_values"]

GRAPH_VALUES = 4970
"""Of the small CNN."""
TINY = 1e-4
"""Relative errors of values below say little."""


# Writing


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldValues:
    """A `ValueFile` in memory, so that reading it costs nothing."""

    values: Values

    def read(self) -> Values:
        return self.values


def writing(folder: Path, num_floats: int, rounds: int) -> list[Row]:
    """One part written by each way in turn, each time to a new place; the first round does not count."""
    num_graphs = num_floats // GRAPH_VALUES
    values = DrawnValues(seed=0, number=0, length=num_graphs * GRAPH_VALUES).read()
    part, files, number = part_of(values), [HeldValues(values=values)], count()
    contents = encode_values(values)
    ways: dict[str, Callable[[], object]] = {
        "np.save, fsync": lambda: save(folder / f"{next(number)}.npy", values),
        "our part": lambda: write_whole(part, folder / f"{next(number)}", files),
        "np.save": lambda: np.save(folder / f"{next(number)}.npy", values),
        "zarr, our codec, no digests, no fsync": lambda: plain_zarr(folder / f"{next(number)}", values),
        "zarr as it comes": lambda: zarr.create_array(folder / f"{next(number)}", data=values),
        "of our part: values gathered and checked": lambda: gather(part, files),
        "of our part: encoded": lambda: encode_values(values),
        "of our part: files written, fsync": lambda: write_all(folder / f"{next(number)}", contents),
    }
    seconds = dict(zip(ways, interleaved(list(ways.values()), rounds), strict=True))
    return [
        {
            "one process": name,
            "MB/s of float32": round(values.nbytes / MB / statistics.median(mine)),
            "ms/part": round(1e3 * statistics.median(mine), 1),
            "times np.save, fsync": round(
                statistics.median(a / b for a, b in zip(seconds["np.save, fsync"], mine, strict=True)), 3
            ),
        }
        for name, mine in seconds.items()
    ]


def write_whole(part: PartPlan, out: Path, files: Sequence[ValueFile]) -> None:
    """As the task does, in a folder of its own."""
    make_folder(out / BUILDING)
    write_part(part, out, files)


def part_of(values: Values) -> PartPlan:
    """The plan of a part of small CNNs."""
    graphs = values.reshape(-1, GRAPH_VALUES)
    zeros = np.zeros(len(graphs), dtype=np.int64)
    return PartPlan(
        index=0,
        graph_id=tuple(f"synthetic-{number:06d}@0" for number in range(len(graphs))),
        values_sha256=tuple(values_sha256(graph) for graph in graphs),
        length=zeros + GRAPH_VALUES,
        file=zeros,
        file_offset=np.arange(len(graphs)) * GRAPH_VALUES,
        dtype="float32",
    )


def save(path: Path, values: Values) -> None:
    """As numpy does, and wait for the disk."""
    with path.open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fsync(file.fileno())


def plain_zarr(path: Path, values: Values) -> None:
    """The array of a part, by zarr itself."""
    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(CHUNK_FLOATS,),
        shards=(SHARD_FLOATS,),
        compressors=[BloscCodec(typesize=4, cname="lz4", clevel=5, shuffle="bitshuffle")],
    )
    array[:] = values


def write_all(folder: Path, contents: dict[str, bytes]) -> None:
    """Files as a part has them."""
    for name, content in contents.items():
        make_folder((folder / name).parent)
        write_file(folder / name, content)


# Codecs


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A way to keep values as bytes."""

    name: str
    encode: Callable[[Values], Sequence[bytes]]
    decode: Callable[[Sequence[bytes], int], np.ndarray]
    """Of what was encoded, and the number of values."""


def codecs(zoo: Path, num_floats: int, rounds: int) -> list[Row]:
    """Size and speed of each codec on the same trained values."""
    values, origin = trained_values(zoo, num_floats)
    numcodecs.blosc.set_nthreads(1)
    candidates = all_codecs()
    encoded = [codec.encode(values) for codec in candidates]
    steps: list[Callable[[], object]] = []
    for codec, pieces in zip(candidates, encoded, strict=True):
        steps += [partial(codec.encode, values), partial(codec.decode, pieces, len(values))]
    speeds = [round(values.nbytes / MB / statistics.median(mine)) for mine in interleaved(steps, rounds)]
    rows: list[Row] = []
    for number, (codec, pieces) in enumerate(zip(candidates, encoded, strict=True)):
        row: Row = {"codec": codec.name, "ratio": round(values.nbytes / sum(map(len, pieces)), 3)}
        row |= {"encode: MB/s": speeds[2 * number], "decode: MB/s": speeds[2 * number + 1]}
        error = relative_error(codec.decode(pieces, len(values)), values)
        rows.append(row | ({"relative error over 1e-4": f"{error:.1e}"} if error else {}))
    return [*rows, {"codec": f"{len(values):,} values {origin}"}]


def relative_error(found: np.ndarray, values: Values) -> float:
    """The greatest, of values that are not tiny."""
    large = np.abs(values) > TINY
    return float(np.max(np.abs(found - values)[large] / np.abs(values[large]), initial=0.0))


def trained_values(zoo: Path, num_floats: int) -> tuple[Values, str]:
    """Values of a zoo, from chunks all over it; where there is none, of networks that are trained here."""
    if (zoo / "zoo.json").exists():
        opened = open_zoo(zoo)
        chunks = finished_chunks(opened)
        first = read_chunk(opened, chunks[0]).values
        wanted = min(len(chunks), -(-num_floats // max(1, len(first))))
        chosen = [chunks[place] for place in np.linspace(0, len(chunks) - 1, wanted).astype(int)]
        return np.concatenate([read_chunk(opened, index).values for index in chosen])[:num_floats], f"of {zoo}"
    tiny = spec("small_cnn", epochs=4 if num_floats > SHARD_FLOATS else 1, num_runs=16)
    trained = train_chunk(expand(tiny), load_images(tiny.images))
    return np.concatenate([checkpoint.values for checkpoint in trained]), "trained here for lack of a zoo"


def all_codecs() -> list[Codec]:
    """Raw, Blosc, Zstandard alone, float16, and ours."""
    found = [Codec(name="raw", encode=lambda values: [values.tobytes()], decode=partial(whole, np.float32))]
    for cname, levels in (("lz4", (1, 5, 9)), ("zstd", (1, 3, 9))):
        for shuffle, name in ((numcodecs.Blosc.SHUFFLE, "shuffle"), (numcodecs.Blosc.BITSHUFFLE, "bitshuffle")):
            for level in levels:
                blosc = numcodecs.Blosc(cname=cname, clevel=level, shuffle=shuffle)
                found.append(by_chunks(f"blosc {cname} {level}, {name}", blosc))
    found += [by_chunks(f"zstd {level}", numcodecs.Zstd(level)) for level in (1, 3, 9)]
    found += [ours("float32"), Codec(name="float16", encode=halved, decode=partial(whole, np.float16)), ours("float16")]
    return found


def by_chunks(name: str, codec: Any) -> Codec:
    """A codec of numcodecs, which says that its methods return nothing, on chunks of the size that parts have."""

    def encode(values: Values) -> list[bytes]:
        starts = range(0, len(values), CHUNK_FLOATS)
        return [bytes(codec.encode(values[start : start + CHUNK_FLOATS])) for start in starts]

    def decode(pieces: Sequence[bytes], num_values: int) -> np.ndarray:
        joined = np.concatenate([np.frombuffer(codec.decode(piece), dtype=np.float32) for piece in pieces])
        assert len(joined) == num_values
        return joined

    return Codec(name=name, encode=encode, decode=decode)


def ours(dtype: Dtype) -> Codec:
    """Parts as they lie in a dataset, checksums and all."""
    names: list[str] = []

    def encode(values: Values) -> list[bytes]:
        contents = encode_values(values, dtype)
        names[:] = contents
        return list(contents.values())

    def decode(pieces: Sequence[bytes], num_values: int) -> np.ndarray:
        return decode_values(Path("values"), dict(zip(names, pieces, strict=True)), num_values, dtype)

    return Codec(name=f"ours, {dtype}", encode=encode, decode=decode)


def halved(values: Values) -> list[bytes]:
    """Rounded to half the size."""
    return [values.astype(np.float16).tobytes()]


def whole(dtype: type[np.floating], pieces: Sequence[bytes], num_values: int) -> np.ndarray:
    """One piece, back to float32."""
    [piece] = pieces
    return np.frombuffer(piece, dtype=dtype, count=num_values).astype(np.float32)
