"""Random ways in which a dataset can be wrong, and what may come of them: for `campaign_damage.py`, which draws
hundreds, and `test_random_damage.py`, which draws a few of every kind.

Reads   a dataset in a folder, of any number of tables, parts and additions
Writes  to a copy of it, whatever a kind of damage is

Damage is of three sorts. To files alone: then every digest is as it was, and nothing that is read may differ. With all
digests mended: then ``verify`` must find that a law of docs/stores.md is broken, and a reader, which believes digests,
may give other graphs. And what may be lawful, by which nothing but errors in one line may come.
"""

import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from damage import delete, forge, replace_by_folder, swap
from pipeline.checked_files import read_manifest
from pipeline.dataset_manifest import GROUPS, MANIFEST
from pipeline.dataset_tables import GRAPH_COLUMNS, parquet_bytes
from pipeline.file_records import sha256
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.parquet_files import read_table
from pipeline.split_rules import SIDES
from pipeline.value_arrays import decode_values, encode_values
from pipeline.verify_graphs import verify

Apply = Callable[[Path, random.Random], str]
"""Does it to the dataset at a path, and says what it did. What changes nothing is drawn again."""

DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
ABSURD: list[Any] = [
    *(0, -1, 1, 3, 2**31 - 1, 2**31, 2**32, 2**50, 2**53 + 1, 2**60, 2**63 - 1, 2**63, 2**64, 10**30, 10**400),
    *(0.5, 1.0, -0.0, 1e308, float("nan"), float("inf"), True, None),
    *("", "3", "nan", "../x", "/x", "a" * 100_000, "\ud800", "\0", [], {}, [[]], {"": 0}, DEEP),
]
"""Values that belong nowhere, or in few places."""
NUMBERS = [0, -1, 1, 2**15, 2**31 - 1, -(2**31), 2**31, 2**50, 2**62, 2**63 - 1, -(2**63)]
"""Of which those that a column has room for are written into it."""
TEXTS = ["", "x", "0" * 64, "f" * 63, "A" * 64, "../x", "\0", "ü", "a" * 100_000]
PLACES = ("part", "offset", "length")
ACCURACIES = ("train_accuracy", "test_accuracy", "test_accuracy_half_a", "test_accuracy_half_b")
FURTHER = ("config.x", "split_x", "split", "", " row", "graph_id", "image")
"""Names of columns that a table need not have, and of some that it has."""
SHARD_INDEX = 16 * 16 + 4
"""Bytes at the end of a shard: offset and length of 16 chunks, and a checksum."""
INVALID = b"\xff\xfe\x80"
"""Not UTF-8."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of damage."""

    apply: Apply
    mended: bool = True
    """Whether all digests are put in order afterwards."""
    broken: bool = True
    """Whether a law is broken, so that ``verify`` must find it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a damage."""

    found: bool
    """By ``verify``."""
    reader: Literal["refused", "the same", "otherwise"]
    """What is there cannot all be read; or it is read as if nothing had been done; or something comes out changed."""
    problem: str
    """Empty if that is how it should be."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All that a reader gives, and the errors it raises."""

    given: dict[tuple[str, object], str] = field(default_factory=dict)
    """By what was asked for: the digest of what came."""
    errors: list[BaseException] = field(default_factory=list)


def draw(kind: Kind, dataset: Path, copy: Path, rng: random.Random) -> str:
    """Copy a dataset and damage it; tells what was done."""
    while True:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(dataset, copy)
        if (done := kind.apply(copy, rng)) and snapshot(copy) != snapshot(dataset):
            return done


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What lies below a folder: the sort of each entry, and its content."""
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[path.relative_to(folder).as_posix()] = (mode, content)
    return found


def judge(kind: Kind, path: Path, sound: Reading) -> Outcome:
    """Verify and read a damaged dataset; ``sound`` is what was read before it was damaged."""
    found, problems = ask_verify(path)
    if kind.broken and not found:
        problems.append("verify calls it sound")
    reading = read_everything(path)
    problems += [f"reader: {wrong}" for wrong in (ill_told(error, path) for error in reading.errors) if wrong]
    changed = [repr(key) for key, text in reading.given.items() if sound.given.get(key) != text]
    if changed and not kind.mended:
        problems.append(f"the reader gives other values without an error: {', '.join(changed[:3])}")
    return Outcome(
        found=found,
        reader="refused" if reading.errors else "otherwise" if changed else "the same",
        problem="; ".join(dict.fromkeys(problems)),
    )


def ask_verify(path: Path) -> tuple[bool, list[str]]:
    """Whether ``verify`` finds anything, and what is wrong with how it says so."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            verify(path, threads=2)
    except Exception as error:  # noqa: BLE001  # of any kind: which one it is, is what is asked
        wrong = ill_told(error, path)
        loose = [line for line in printed.getvalue().splitlines() if not line.startswith(("  ", str(path)))]
        told = [wrong, *(f"a line by itself: {line[:80]!r}" for line in loose)]
        return True, [f"verify: {what}" for what in told if what]
    return False, []


def ill_told(error: BaseException, path: Path) -> str:
    """What is wrong with an error; empty if it is a ValueError of one line that names a file or a graph."""
    text = str(error)
    told = f"{type(error).__name__}: {text[:160]!r}"
    if not isinstance(error, ValueError):
        return told
    if "\n" in text or len(text) > 2000:
        return f"not one line of 2000 characters at most: {told}"
    return "" if str(path) in text else f"names no file: {told}"


def read_everything(path: Path) -> Reading:
    """Open a dataset and ask for all that there is, each by itself."""
    reading = Reading()
    try:
        dataset = open_graphs(path, parts_in_memory=2)
    except Exception as error:  # noqa: BLE001  # as above
        reading.errors.append(error)
        return reading
    for key, give in questions(dataset):
        try:
            reading.given[key] = sha256(give())
        except Exception as error:  # noqa: BLE001  # as above
            reading.errors.append(error)
    return reading


def questions(dataset: GraphDataset) -> Iterator[tuple[tuple[str, object], Callable[[], bytes]]]:
    """What a dataset can be asked for, and how."""
    yield ("made of", ""), lambda: repr(dataset.made_of).encode()
    yield ("left out", ""), lambda: repr(dataset.left_out.to_pylist()).encode()
    for digest in list(dataset.templates):
        yield ("template", digest), lambda digest=digest: dataset.templates[digest].digest.encode()
    for row in range(len(dataset)):
        yield ("row", row), lambda row=row: table_bytes(dataset.table.slice(row, 1))
        yield ("graph", row), lambda row=row: graph_bytes(dataset, row)
    yield ("stream", ""), lambda: b"".join(graph.values.tobytes() for _, graph in dataset.stream(parts_per_window=2))
    yield ("filter", ""), lambda: chosen_bytes(dataset.filter(pc.field("epoch") >= 0))
    yield ("split", ""), lambda: chosen_bytes(dataset.split(dataset.table["split"][0].as_py()))


def graph_bytes(dataset: GraphDataset, row: int) -> bytes:
    """A graph: its template, its values, and its state dict."""
    graph = dataset[row]
    tensors = graph.state_dict()
    return b"".join(
        (
            graph.template.digest.encode(),
            graph.values.tobytes(),
            *(name.encode() + tensor.numpy().tobytes() for name, tensor in tensors.items()),
        )
    )


def table_bytes(table: pa.Table) -> bytes:
    """A table as Arrow sends it: equal bytes for equal tables, of whatever types."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def chosen_bytes(dataset: GraphDataset) -> bytes:
    """The rows of some graphs."""
    return table_bytes(dataset.table)


# Files alone.


def any_file(path: Path, rng: random.Random) -> str:
    """Any file of a dataset, the manifest as often as ten others."""
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return rng.choice([*files, *[MANIFEST] * (len(files) // 10)])


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    count = min(rng.choice([1, 4, 64, 4096]), len(content) - start)
    return content[:start] + rng.choice([rng.randbytes(count), bytes(count)]) + content[start + count :]


def cut_bytes(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice([0, 1, len(content) - 1, rng.randrange(len(content))])]


def add_bytes(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice([rng.randbytes(rng.choice([1, 100, 10**6])), content, b"\n"])


BYTES = (flip_bits, overwrite_bytes, cut_bytes, add_bytes)


def in_a_file(edit: Callable[[bytes, random.Random], bytes]) -> Apply:
    def apply(path: Path, rng: random.Random) -> str:
        file = any_file(path, rng)
        (path / file).write_bytes(edit((path / file).read_bytes(), rng))
        return file

    return apply


def lose_a_file(path: Path, rng: random.Random) -> str:
    file = any_file(path, rng)
    delete(file, path)
    return file


def exchange_files(path: Path, rng: random.Random) -> str:
    first, second = any_file(path, rng), any_file(path, rng)
    if first == second:
        return ""
    swap(first, second, path)
    return f"{first} and {second}"


def copy_a_file(path: Path, rng: random.Random) -> str:
    first, second = any_file(path, rng), any_file(path, rng)
    (path / second).write_bytes((path / first).read_bytes())
    return f"{first} over {second}"


def add_a_file(path: Path, rng: random.Random) -> str:
    """A copy beside what is there, with the next number, say."""
    file = path / any_file(path, rng)
    name = rng.choice(["00099.parquet", "1", "notes.txt", f"{file.name}.bak", f".{file.name}~host~1~aside", "a\nb"])
    shutil.copy(file, file.with_name(name))
    return file.with_name(name).relative_to(path).as_posix()


def folder_for_a_file(path: Path, rng: random.Random) -> str:
    file = any_file(path, rng)
    replace_by_folder(file, path)
    if rng.random() < 0.5:
        (path / file / "0").write_bytes(b"0")
    return file


def link_for_a_file(path: Path, rng: random.Random) -> str:
    """To nothing, to itself, to a folder, to another file, to a device without end; or a pipe."""
    file = any_file(path, rng)
    target = rng.choice(["nowhere", Path(file).name, "..", str(path / any_file(path, rng)), "/dev/zero", "a pipe"])
    delete(file, path)
    if target == "a pipe":
        os.mkfifo(path / file)
    else:
        (path / file).symlink_to(target)
    return f"{file} -> {target.removeprefix(f'{path}/')}"


def spoil_a_folder(path: Path, rng: random.Random) -> str:
    """Lost, or a file or a link that leads in a circle in its place."""
    folder = rng.choice(sorted(entry for entry in path.rglob("*") if entry.is_dir()))
    shutil.rmtree(folder)
    match what := rng.choice(["lost", "a file", "a circle"]):
        case "a file":
            folder.write_bytes(b"")
        case "a circle":
            folder.symlink_to(folder.name)
    return f"{folder.relative_to(path).as_posix()}: {what}"


# JSON.


def paths_in(document: Any, start: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document."""
    steps: Sequence[Any] = ()
    if isinstance(document, dict):
        steps = list(document)
    elif isinstance(document, list):
        steps = range(len(document))
    for step in steps:
        yield (*start, step)
        yield from paths_in(document[step], (*start, step))


def edit_json(document: Any, places: Sequence[tuple[Any, ...]], rng: random.Random) -> str:
    """One edit at one of some places: something absurd in its place, a little more or less, gone, or there twice."""
    place = rng.choice(places)
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    last, old = place[-1], inner[place[-1]]
    match what := rng.choice(["absurd", "absurd", "little", "gone", "twice", "elsewhere"]):
        case "absurd":
            inner[last] = rng.choice(ABSURD)
            what = f"{inner[last]!r:.60}"
        case "little" if isinstance(old, int):
            inner[last] = old + rng.choice([-1, 1])
        case "little" if isinstance(old, str) and old:
            inner[last] = old[:-1] + chr(ord(old[-1]) ^ 1)
        case "gone":
            del inner[last]
        case "twice" if isinstance(inner, list):
            inner.insert(last, old)
        case "twice" if isinstance(inner, dict):
            inner[rng.choice([f"{last}x", f"../{last}", f"/{last}", "", "values/00099/c/0"])] = old
        case "elsewhere" if isinstance(old, list | dict) and len(old) > 1:
            inner[last] = list(old)[::-1]
        case _:
            return ""
    return f"{'/'.join(map(str, place)):.80}: {what}"


def manifest_text(document: dict[str, Any]) -> str:
    """A manifest whose digest is that of its text, whatever it says."""
    document = {name: value for name, value in document.items() if name != "digest"}

    def text(content: dict[str, Any]) -> str:
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    return text(document | {"digest": sha256(text(document).encode())})


def in_the_manifest(*names: str, mended: bool = True) -> Apply:
    """Edit what stands under some names, but not where the graphs come from."""

    def apply(path: Path, rng: random.Random) -> str:
        document = json.loads((path / MANIFEST).read_bytes())
        places = [place for place in paths_in(document) if place[0] in names and "made_of" not in place]
        done = edit_json(document, places, rng)
        text = manifest_text(document) if mended else json.dumps(document, sort_keys=True, separators=(",", ":"))
        (path / MANIFEST).write_text(text)
        return done

    return apply


def in_made_of(path: Path, rng: random.Random) -> str:
    """Edit what the manifest says of where the graphs come from."""
    document = json.loads((path / MANIFEST).read_bytes())
    done = edit_json(document, [place for place in paths_in(document) if "made_of" in place], rng)
    (path / MANIFEST).write_text(manifest_text(document))
    return done


def files_in(path: Path, pattern: str) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.glob(pattern))


def in_a_group(path: Path, rng: random.Random) -> str:
    """Edit the description of a zarr group."""
    file = rng.choice(list(GROUPS))
    document = json.loads((path / file).read_bytes())
    done = edit_json(document, list(paths_in(document)), rng)
    (path / file).write_text(json.dumps(document))
    forge(path)
    return f"{file}: {done}" if done else ""


ARRAYS = "values/0*/zarr.json"
SHARDS = "values/0*/c/*"


def in_an_array(path: Path, rng: random.Random) -> str:
    """Edit what the description of an array must say."""
    file = rng.choice(files_in(path, ARRAYS))
    before = json.loads((path / file).read_bytes())
    document = json.loads((path / file).read_bytes())
    free = ("attributes", "storage_transformers", "dimension_names")
    done = edit_json(document, [place for place in paths_in(document) if place[0] not in free], rng)
    named = [name for name in before if name not in free]
    if all(document.get(name) == before[name] for name in named):  # 1.0 is 1
        return ""
    (path / file).write_text(json.dumps(document))
    forge(path)
    return f"{file}: {done}" if done else ""


def beside_an_array(path: Path, rng: random.Random) -> str:
    """Change what the format leaves open: other keys, and how the same is written."""
    file = rng.choice(files_in(path, ARRAYS))
    document = json.loads((path / file).read_bytes())
    content, what = "", rng.choice(["a key", "a key", "floats", "spaces", "twice", "UTF-16"])
    match what:
        case "a key":
            name = rng.choice(["attributes", "storage_transformers", "dimension_names", "consolidated_metadata", "x"])
            document[name] = rng.choice([*ABSURD, {"must_understand": False}, ["a"], [{"name": "x"}], [None, None]])
            what = f"{name}: {document[name]!r:.60}"
            content = json.dumps(document)
        case "floats":
            places = [place for place in paths_in(document) if type(at(document, place)) is int]
            place = rng.choice(places)
            at(document, place[:-1])[place[-1]] = float(at(document, place))
            what = f"{place} with a point"
            content = json.dumps(document)
        case "spaces":
            content = json.dumps(document, indent=rng.randrange(9))
        case "twice":
            content = json.dumps(document).replace("{", '{"node_type":"group","shape":[-1],', 1)
        case "UTF-16":
            content = json.dumps(document)
    (path / file).write_text(content, encoding="utf-16" if what == "UTF-16" else "utf-8")
    forge(path)
    return f"{file}: {what}"


def at(document: Any, place: tuple[Any, ...]) -> Any:
    """What stands at a place."""
    for step in place:
        document = document[step]
    return document


# Values.


def other_values(path: Path, rng: random.Random) -> str:
    """A shard of another part, of random numbers, of another length or type, or with a number that is none."""
    file = rng.choice(files_in(path, SHARDS))
    part = int(file.split("/")[1])
    num_values = read_manifest(path).parts[part].num_values
    values = np.random.default_rng(rng.randrange(2**32)).standard_normal(num_values).astype(np.float32)
    match what := rng.choice(["another part's", "random", "longer", "shorter", "float16", "a NaN", "an infinity", "0"]):
        case "another part's":
            content = (path / rng.choice(files_in(path, SHARDS))).read_bytes()
        case "longer":
            content = encode_values(np.append(values, values))["c/0"]
        case "shorter":
            content = encode_values(values[: num_values // 2])["c/0"]
        case "float16":
            content = encode_values(values, "float16")["c/0"]
        case "a NaN" | "an infinity":
            values = values_of(path, part).copy()
            values[rng.randrange(num_values)] = np.nan if what == "a NaN" else -np.inf
            content = encode_values(values)["c/0"]
        case "0":
            content = encode_values(np.zeros(num_values, dtype=np.float32)).get("c/0", b"")
        case _:
            content = encode_values(values)["c/0"]
    (path / file).write_bytes(content)
    forge(path)
    return f"{file}: {what}"


def values_of(path: Path, part: int) -> np.ndarray:
    """The values of a part."""
    folder = path / "values" / f"{part:05d}"
    contents = {name: (folder / name).read_bytes() for name in ("zarr.json", "c/0")}
    return decode_values(folder, contents, read_manifest(path).parts[part].num_values)


def in_a_shard(path: Path, rng: random.Random) -> str:
    """Change bytes of a shard, each of which is under a checksum of its own."""
    file = rng.choice(files_in(path, SHARDS))
    edit = rng.choice([flip_bits, overwrite_bytes, cut_bytes])  # a shard twice over is one that reads the same
    (path / file).write_bytes(edit((path / file).read_bytes(), rng))
    forge(path)
    return file


def with_checksum(content: bytes) -> bytes:
    """With its CRC32C behind it, as zarr writes it."""
    return content + google_crc32c.value(content).to_bytes(4, "little")


def in_an_index(path: Path, rng: random.Random) -> str:
    """Where a shard says its first chunk lies, under the checksum that fits; the other 15 are absent."""
    file = rng.choice(files_in(path, SHARDS))
    content = (path / file).read_bytes()
    index = np.frombuffer(content[-SHARD_INDEX:-4], dtype="<u8").copy()
    number = rng.choice([0, 1])
    near = [(int(index[number]) + change) % 2**64 for change in (-1, 1)]
    index[number] = rng.choice([0, *near, 2**31, 2**50, 2**63, 2**64 - 1])
    if rng.random() < 0.2:
        index[:2] = 2**64 - 1  # absent: all NaN
    (path / file).write_bytes(content[:-SHARD_INDEX] + with_checksum(index.tobytes()))
    forge(path)
    return f"{file}: {index[:2].tolist()}"


def in_a_chunk(path: Path, rng: random.Random) -> str:
    """What a compressed chunk says of itself, under checksums that fit."""
    file = rng.choice(files_in(path, SHARDS))
    content = (path / file).read_bytes()
    start, length = np.frombuffer(content[-SHARD_INDEX:-4], dtype="<u8")[:2].tolist()
    chunk = bytearray(content[start : start + length - 4])
    place = rng.randrange(rng.choice([16, len(chunk)]))
    chunk[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    (path / file).write_bytes(content[:start] + with_checksum(bytes(chunk)) + content[start + length :])
    forge(path)
    return f"{file}: byte {place} is {chunk[place]}"


# Tables.


def change_table(path: Path, file: str, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Write an edited table, all digests in order."""
    (path / file).write_bytes(parquet_bytes(edit(read_table(path / file))))
    forge(path)


def set_cell(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """The table with one value changed."""
    column = table.schema.field(name)
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), column, pa.array(values, type=column.type))


def cell(names: Sequence[str] | None, values: Callable[[pa.ChunkedArray], Sequence[Any]]) -> Apply:
    """Change a value in one of some columns, or any, to one of those that its column may get."""

    def apply(path: Path, rng: random.Random) -> str:
        file = rng.choice(files_in(path, "tables/*"))
        table = read_table(path / file)
        name, row = rng.choice(list(names or table.column_names)), rng.randrange(table.num_rows)
        value = rng.choice(values(table[name]))
        if value == table[name][row].as_py():
            return ""
        change_table(path, file, lambda table: set_cell(table, name, row, value))
        return f"{file}: {name} of row {row} is {value!r:.60}"

    return apply


def absurd(column: pa.ChunkedArray) -> list[Any]:
    """Absurd values that a column has room for."""
    kind = column.type
    if pa.types.is_integer(kind):
        most = 2 ** (kind.bit_width - 1)
        return [number for number in NUMBERS if -most <= number < most]
    if pa.types.is_floating(kind):
        return [float("nan"), float("inf"), -1.0, 1e308, 5e-324, -0.0]
    return TEXTS


def absurd_or_another(column: pa.ChunkedArray) -> list[Any]:
    """As above, or what another row has."""
    return [*absurd(column), *column.to_pylist()]


def no_accuracies(column: pa.ChunkedArray) -> list[Any]:
    """Numbers that are no fractions."""
    return [2.0, -0.5, -5e-324, 1e308, float("inf"), float("-inf")]


def other_sides(column: pa.ChunkedArray) -> list[Any]:
    """Names of sides, and other words."""
    return [*TEXTS, *SIDES]


def a_null(path: Path, rng: random.Random) -> str:
    """In a column that has none."""
    file = rng.choice([*files_in(path, "t*/*.parquet"), *files_in(path, "left_out/*")])
    name = rng.choice([name for name in read_table(path / file).column_names if not name.startswith("config.")])
    if file.startswith("tables") and name not in GRAPH_COLUMNS.names:
        return ""
    change_table(path, file, lambda table: set_cell(table, name, rng.randrange(table.num_rows), None))
    return f"{file}: {name}"


def other_columns(path: Path, rng: random.Random) -> str:
    """A column that must be there is dropped, renamed, of another type, or there twice."""
    file = rng.choice([*files_in(path, "t*/*.parquet"), *files_in(path, "left_out/*")])
    table = read_table(path / file)
    names = [name for name in table.column_names if not file.startswith("tables") or name in GRAPH_COLUMNS.names]
    name = rng.choice(names)
    place, kind = table.column_names.index(name), table.schema.field(name).type
    types = [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
    if not pa.types.is_string(kind):
        types = [other for other in (pa.int64(), pa.int32(), pa.float64(), pa.string()) if other != kind]
    match what := rng.choice(["gone", "renamed", "another type", "twice"]):
        case "gone":
            table = table.drop_columns(name)
        case "renamed":
            table = table.rename_columns([f"{name} " if other == name else other for other in table.column_names])
        case "another type":
            other = rng.choice(types)
            if pa.types.is_floating(kind) and pa.types.is_integer(other):
                return ""
            table = table.set_column(place, name, table[name].cast(other))
        case "twice":
            table = table.append_column(name, table[name])
    change_table(path, file, lambda _: table)
    return f"{file}: {name} {what}"


def other_rows(path: Path, rng: random.Random) -> str:
    """Rows are gone, there twice, or in another order."""
    file = rng.choice(files_in(path, "t*/*.parquet"))
    table = read_table(path / file)
    rows, row = list(range(table.num_rows)), rng.randrange(table.num_rows)
    match what := rng.choice(["gone", "twice", "all gone", "the other way round"]):
        case "gone":
            del rows[row]
        case "twice":
            rows.insert(row, row)
        case "all gone":
            rows = []
        case _ if len(rows) > 1 and file.startswith("tables"):
            rows.reverse()
        case _:
            return ""
    change_table(path, file, lambda table: table.take(np.array(rows, dtype=np.int64)))
    return f"{file}: row {row} {what}"


def further_column(path: Path, rng: random.Random) -> str:
    """A column more, of any name and type, or text in a column that is none."""
    file = rng.choice(files_in(path, "tables/*"))
    table = read_table(path / file)
    count, name = table.num_rows, rng.choice(FURTHER)
    columns = {
        "nulls": pa.nulls(count),
        "truth": pa.array([True] * count),
        "lists": pa.array([["train"]] * count),
        "objects": pa.array([{"a": {"b": 1}}] * count),
        "bytes": pa.array([b"\0"] * count),
        "numbers": pa.array([2**63 - 1] * count),
        "unsigned": pa.array([2**64 - 1] * count, type=pa.uint64()),
        "half floats": pa.array(np.full(count, 1, dtype=np.float16)),
        "times": pa.array([2**62] * count, type=pa.timestamp("ns", tz="Europe/Nowhere")),
        "durations": pa.array([2**63 - 1] * count, type=pa.duration("s")),
        "words of few": pa.array(["train"] * count).dictionary_encode(),
        "train": pa.array(["train"] * count),
        "empty": pa.array([""] * count),
        "not UTF-8": not_utf8(count),
        "a null": pa.array([None, *["train"] * (count - 1)], type=pa.string()),
    }
    what = rng.choice(list(columns))
    if what == "not UTF-8" and rng.random() < 0.7:
        name = rng.choice([column.name for column in table.schema if column.type == pa.string()])
        table = table.set_column(table.column_names.index(name), name, columns[what])
    else:
        table = table.append_column(name, columns[what])
    change_table(path, file, lambda _: table)
    return f"{file}: {name!r} of {what}"


def not_utf8(count: int) -> pa.Array:
    """Text that is none."""
    words = pa.array([INVALID] * count, type=pa.binary())
    return pa.Array.from_buffers(pa.string(), count, words.buffers())


def in_a_parquet_file(path: Path, rng: random.Random) -> str:
    """Change bytes of a table."""
    file = rng.choice([*files_in(path, "t*/*.parquet"), *files_in(path, "left_out/*")])
    (path / file).write_bytes(rng.choice(BYTES)((path / file).read_bytes(), rng))
    forge(path)
    return file


# Templates.


def in_a_template(digests: bool) -> Apply:
    """Edit the text of a template; ``digests``: with its digest put in order wherever it stands."""

    def apply(path: Path, rng: random.Random) -> str:
        file = rng.choice(files_in(path, "templates/*"))
        table = read_table(path / file)
        row = rng.randrange(table.num_rows)
        old, document = table["template"][row].as_py(), json.loads(table["document"][row].as_py())
        done = [edit_json(document, list(paths_in(document)), rng) for _ in range(rng.choice([1, 1, 2]))]
        try:
            text = rng.choice([template_text, template_text, template_text, json.dumps])(document)
            text.encode()
        except (RecursionError, UnicodeEncodeError):
            return ""
        change_table(path, file, lambda table: set_cell(table, "document", row, text))
        if digests:
            new = sha256(text.encode())
            for name in (file, *files_in(path, "tables/*")):
                change_table(path, name, lambda table: renamed(table, old, new))
        return f"{file}: {'; '.join(done)}" if all(done) else ""

    return apply


def template_text(document: Any) -> str:
    """In the form that is to the byte the canonical one, if its runs are."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def renamed(table: pa.Table, old: str, new: str) -> pa.Table:
    """A template under another digest."""
    digests = [new if digest == old else digest for digest in table["template"].to_pylist()]
    return table.set_column(table.column_names.index("template"), "template", pa.array(digests, type=pa.string()))


KINDS: dict[str, Kind] = {
    "bits flipped": Kind(apply=in_a_file(flip_bits), mended=False),
    "bytes overwritten": Kind(apply=in_a_file(overwrite_bytes), mended=False),
    "a file cut short": Kind(apply=in_a_file(cut_bytes), mended=False),
    "bytes added": Kind(apply=in_a_file(add_bytes), mended=False),
    "a file lost": Kind(apply=lose_a_file, mended=False),
    "two files exchanged": Kind(apply=exchange_files, mended=False),
    "a file over another": Kind(apply=copy_a_file, mended=False),
    "a file too many": Kind(apply=add_a_file, mended=False),
    "a folder for a file": Kind(apply=folder_for_a_file, mended=False),
    "a link for a file": Kind(apply=link_for_a_file, mended=False),
    "a folder lost or replaced": Kind(apply=spoil_a_folder, mended=False),
    "the manifest edited": Kind(
        apply=in_the_manifest("dtype", "options", "additions", "tables", "parts", "files", "digest", mended=False),
        mended=False,
    ),
    "counts, names or digests of the manifest": Kind(
        apply=in_the_manifest("format", "version", "dtype", "additions", "tables", "parts", "files")
    ),
    "options of the manifest": Kind(apply=in_the_manifest("options"), broken=False),
    "sources of the manifest": Kind(apply=in_made_of, broken=False),
    "a group's description": Kind(apply=in_a_group),
    "an array's description": Kind(apply=in_an_array),
    "an array's description, where it is free": Kind(apply=beside_an_array, broken=False),
    "a shard of other values": Kind(apply=other_values),
    "bytes of a shard": Kind(apply=in_a_shard),
    "the index of a shard": Kind(apply=in_an_index),
    "a compressed chunk": Kind(apply=in_a_chunk, broken=False),
    "places in a table": Kind(apply=cell(PLACES, absurd_or_another)),
    "names and digests in a table": Kind(apply=cell(("graph_id", "run_id", "values_sha256"), absurd_or_another)),
    "epochs in a table": Kind(apply=cell(("epoch",), absurd_or_another)),
    "sides in a table": Kind(apply=cell(("split",), other_sides)),
    "accuracies in a table": Kind(apply=cell(ACCURACIES, no_accuracies)),
    "templates in a table": Kind(apply=cell(("template",), absurd_or_another), broken=False),
    "nulls in a table": Kind(apply=a_null),
    "columns of a table": Kind(apply=other_columns),
    "rows of a table": Kind(apply=other_rows),
    "anything in a table": Kind(apply=cell(None, absurd_or_another), broken=False),
    "a column too many": Kind(apply=further_column, broken=False),
    "bytes of a table": Kind(apply=in_a_parquet_file, broken=False),
    "a template's text": Kind(apply=in_a_template(digests=False)),
    "a template's text and digest": Kind(apply=in_a_template(digests=True), broken=False),
}
"""What may be drawn, each as often as the others."""
