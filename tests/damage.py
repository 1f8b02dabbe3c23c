"""Ways in which a dataset can be wrong: files that were changed, and datasets that lie with every digest in order.

`DAMAGES` are done to a copy of the tiny dataset (tests/tiny_dataset.py) by the tests of readers and of ``verify``.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset_manifest import MANIFEST, canonical_json
from pipeline.file_records import sha256
from pipeline.value_arrays import encode_values
from tiny_dataset import NUM_VALUES

TABLE, TEMPLATES = "tables/00001.parquet", "templates/00000.parquet"
ARRAY, SHARD = "values/00001/zarr.json", "values/00001/c/0"
LEFT_OUT = "left_out/00000.parquet"
GROUPS = ("zarr.json", "values/zarr.json")
FILES = (TABLE, TEMPLATES, ARRAY, SHARD, LEFT_OUT, *GROUPS)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing wrong, of three graphs in part 1."""

    apply: Callable[[Path], None]
    """Does it to the dataset at a path."""
    message: str
    """Part of the error, as a regular expression."""
    file: str = ""
    """The file or graph the error must name."""
    reader: bool = True
    """Whether reading every graph finds it; ``verify`` finds everything."""


def flip(file: str, path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (path / file).write_bytes(content)


def truncate(file: str, path: Path) -> None:
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[: len(content) // 2])


def lengthen(file: str, path: Path) -> None:
    (path / file).write_bytes((path / file).read_bytes() + b"\n")


def overwrite(file: str, content: bytes, path: Path) -> None:
    (path / file).write_bytes(content)


def delete(file: str, path: Path) -> None:
    (path / file).unlink()


def replace_by_folder(file: str, path: Path) -> None:
    (path / file).unlink()
    (path / file).mkdir()


def swap(first: str, second: str, path: Path) -> None:
    (path / first).rename(path / "aside")
    (path / second).rename(path / first)
    (path / "aside").rename(path / second)


def forge(path: Path, edit: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Give all files the digests they have now, then edit the manifest and give it the digest it has then."""
    document = json.loads((path / MANIFEST).read_bytes())
    del document["digest"]
    for name in document["files"]:
        content = (path / name).read_bytes()
        document["files"][name] = {"size": len(content), "sha256": sha256(content)}
    edit(document)
    (path / MANIFEST).write_text(canonical_json(document | {"digest": sha256(canonical_json(document).encode())}))


def forge_manifest(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda path: forge(path, edit)


def forge_file(file: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Edit a file, with its digest in order."""

    def apply(path: Path) -> None:
        (path / file).write_bytes(edit((path / file).read_bytes()))
        forge(path)

    return apply


def forge_json(file: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edited(content: bytes) -> bytes:
        document = json.loads(content)
        edit(document)
        return json.dumps(document).encode()

    return forge_file(file, edited)


def forge_table(edit: Callable[[pa.Table], pa.Table], file: str = TABLE) -> Callable[[Path], None]:
    def edited(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(edit(pq.read_table(pa.BufferReader(content))), sink)
        return sink.getvalue().to_pybytes()

    return forge_file(file, edited)


def forge_column(name: str, edit: Callable[[list[Any]], list[Any]], file: str = TABLE) -> Callable[[Path], None]:
    """Edit a column of a table, given as a list, with all digests in order."""

    def edited(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        column = pa.array(edit(table[name].to_pylist()), type=field.type)
        return table.set_column(table.column_names.index(name), field, column)

    return forge_table(edited, file)


def other_lengths(path: Path) -> None:
    """The first two graphs of part 1 divided at another place."""
    forge_column("length", lambda lengths: [lengths[0] - 1, lengths[1] + 1, lengths[2]])(path)
    forge_column("offset", lambda offsets: [0, offsets[1] - 1, offsets[2]])(path)


def not_a_number(path: Path) -> None:
    values = np.ones(3 * NUM_VALUES, dtype=np.float32)
    values[NUM_VALUES] = np.nan
    (path / SHARD).write_bytes(encode_values(values)["c/0"])
    forge(path)


def copy_over(path: Path) -> None:
    shutil.copy(path / "values/00002/c/0", path / SHARD)


DAMAGES: dict[str, Damage] = {
    **{
        f"a flipped bit in {file}": Damage(
            apply=partial(flip, file), message="altered", file=file, reader=file not in GROUPS
        )
        for file in FILES
    },
    **{
        f"{file} cut short": Damage(
            apply=partial(truncate, file),
            message=r"\d+ bytes, \d+ were written",
            file=file,
            reader=file not in GROUPS,
        )
        for file in FILES
    },
    **{
        f"{file} missing": Damage(apply=partial(delete, file), message="missing", file=file, reader=file not in GROUPS)
        for file in FILES
    },
    "a byte more in a table": Damage(apply=partial(lengthen, TABLE), message="were written", file=TABLE),
    "a table replaced by a folder": Damage(apply=partial(replace_by_folder, TABLE), message="were written", file=TABLE),
    "two tables exchanged": Damage(
        apply=partial(swap, TABLE, "tables/00002.parquet"), message="altered|were written", file=TABLE
    ),
    "two shards exchanged": Damage(
        apply=partial(swap, SHARD, "values/00002/c/0"), message="altered|were written", file=SHARD
    ),
    "a shard replaced by another": Damage(apply=copy_over, message="altered|were written", file=SHARD),
    "a flipped bit in the manifest": Damage(
        apply=partial(flip, MANIFEST), message="altered|not a manifest|not JSON", file=MANIFEST
    ),
    "the manifest cut short": Damage(apply=partial(truncate, MANIFEST), message="not JSON", file=MANIFEST),
    "the manifest missing": Damage(apply=partial(delete, MANIFEST), message="this dataset is not finished"),
    "the manifest with a space more": Damage(
        apply=partial(lengthen, MANIFEST), message="its digest does not fit its text", file=MANIFEST
    ),
    "a manifest without end": Damage(
        apply=partial(overwrite, MANIFEST, b"[" * 100_000), message="not JSON", file=MANIFEST
    ),
    "a manifest that is a list": Damage(
        apply=partial(overwrite, MANIFEST, b"[]"), message="not the manifest of", file=MANIFEST
    ),
    "another format": Damage(
        apply=forge_manifest(lambda document: document.update(format="metazoo-zoo")),
        message="not the manifest of a parameter-graph dataset",
        file=MANIFEST,
    ),
    "another version": Damage(
        apply=forge_manifest(lambda document: document.update(version=2)),
        message="has version 2, this program reads version 1; build it anew: python -m pipeline graphs --zoo ZOO",
        file=MANIFEST,
    ),
    "an unknown field": Damage(
        apply=forge_manifest(lambda document: document.update(colour="blue")),
        message="its digest does not fit its text",
        file=MANIFEST,
    ),
    "a field less": Damage(
        apply=forge_manifest(lambda document: document.pop("dtype")),
        message="not a manifest of version 1: KeyError: 'dtype'",
        file=MANIFEST,
    ),
    "a path that leaves the dataset": Damage(
        apply=forge_manifest(lambda document: document["files"].update({"../x": document["files"].pop(SHARD)})),
        message="names '../x'; by its counts there are 19 files",
        file=MANIFEST,
    ),
    "an absolute path": Damage(
        apply=forge_manifest(lambda document: document["files"].update({"/x": document["files"][SHARD]})),
        message="names '/x'",
        file=MANIFEST,
    ),
    "a shard that is not named": Damage(
        apply=forge_manifest(lambda document: document["files"].pop(SHARD)),
        message="does not name 'values/00001/c/0'",
        file=MANIFEST,
    ),
    "an absurd number of values": Damage(
        apply=forge_manifest(lambda document: document["parts"][1].update(num_values=2**60)),
        message="more values than 19 files can hold",
        file=MANIFEST,
    ),
    "a negative count": Damage(
        apply=forge_manifest(lambda document: document["parts"][1].update(num_graphs=-3)),
        message="found -3 where a count belongs",
        file=MANIFEST,
    ),
    "a count that is true": Damage(
        apply=forge_manifest(lambda document: document["additions"][0].update(num_left_out=True)),
        message="found True where a count belongs",
        file=MANIFEST,
    ),
    "more templates than graphs": Damage(
        apply=forge_manifest(lambda document: document["tables"][1].update(num_templates=4)),
        message="the counts of table 00001 do not fit together",
        file=MANIFEST,
    ),
    "more graphs than values": Damage(
        apply=forge_manifest(lambda document: document["parts"][1].update(num_graphs=10**6)),
        message="the counts of part 00001 do not fit together",
        file=MANIFEST,
    ),
    "a table of no parts": Damage(
        apply=forge_manifest(lambda document: document["tables"][1].update(num_parts=0)),
        message=r"it counts 5 parts as \[1, 0, 1, 1, 1\], which do not fit together",
        file=MANIFEST,
    ),
    "an addition of more tables than there are": Damage(
        apply=forge_manifest(lambda document: document["additions"][0].update(num_tables=2**60)),
        message="it counts 5 tables as",
        file=MANIFEST,
    ),
    "no additions": Damage(
        apply=forge_manifest(lambda document: document.update(additions=[])),
        message="it counts 5 tables as",
        file=MANIFEST,
    ),
    "an unknown type of values": Damage(
        apply=forge_manifest(lambda document: document.update(dtype="float8")),
        message="dtype is 'float8', expected one of float32, float16",
        file=MANIFEST,
    ),
    "another type of values": Damage(
        apply=forge_manifest(lambda document: document.update(dtype="float16")),
        message="data_type is float32; the format has float16",
        file="values/0000",
    ),
    "options that are a list": Damage(
        apply=forge_manifest(lambda document: document.update(options=[])),
        message=r"found \[\] where an object belongs",
        file=MANIFEST,
    ),
    "graphs left out that nobody counted": Damage(
        apply=forge_table(lambda table: table.slice(1), LEFT_OUT), message="1 rows; the manifest says 2", file=LEFT_OUT
    ),
    "a graph that is left out and there": Damage(
        apply=forge_column("graph_id", lambda _: ["f3303554-000001@0", "x@1"], LEFT_OUT),
        message="graph f3303554-000001@0: left out, and in the dataset by the same addition",
        reader=False,
    ),
    "a side of another name": Damage(
        apply=forge_column("split", lambda sides: ["training" for _ in sides]),
        message="its split is none of train, val, test, test_in, unused",
        reader=False,
    ),
    "values of another digest": Damage(
        apply=forge_column("values_sha256", lambda digests: ["0" * 64, *digests[1:]]),
        message=r"graph \S+: its values have another digest",
        reader=False,
    ),
    "a table that is none": Damage(
        apply=forge_file(TABLE, lambda _: b"PAR1 and nothing else PAR1"),
        message="not a readable Parquet file",
        file=TABLE,
    ),
    "a row less": Damage(
        apply=forge_table(lambda table: table.slice(1)), message="2 rows; the manifest says 3", file=TABLE
    ),
    "a column less": Damage(
        apply=forge_table(lambda table: table.drop_columns("unit")),
        message="column unit is None; expected string",
        file=TABLE,
    ),
    "a column of another type": Damage(
        apply=forge_table(
            lambda table: table.set_column(table.column_names.index("part"), "part", table["part"].cast(pa.int64()))
        ),
        message="column part is int64; expected int32",
        file=TABLE,
    ),
    "a column with nulls": Damage(
        apply=forge_column("unit", lambda units: [None, *units[1:]]), message="column unit has 1 nulls", file=TABLE
    ),
    "the rows of another part": Damage(
        apply=forge_column("part", lambda parts: [1, 1, 2]), message="row 2: part 2, offset 9940", file=TABLE
    ),
    "a negative offset": Damage(
        apply=forge_column("offset", lambda offsets: [-1, *offsets[1:]]), message="row 0: part 1, offset -1", file=TABLE
    ),
    "an absurd offset": Damage(
        apply=forge_column("offset", lambda offsets: [*offsets[:2], 2**62]), message="row 2: part 1", file=TABLE
    ),
    "graphs that overlap": Damage(
        apply=forge_column("offset", lambda offsets: [0, 0, offsets[2]]), message="row 1: part 1, offset 0", file=TABLE
    ),
    "a graph without values": Damage(
        apply=forge_column("length", lambda lengths: [*lengths[:2], 0]), message="length 0; expected", file=TABLE
    ),
    "an absurd length": Damage(
        apply=forge_column("length", lambda lengths: [*lengths[:2], 2**62]), message="length 4611686", file=TABLE
    ),
    "values of no graph": Damage(
        apply=forge_column("length", lambda lengths: [*lengths[:2], 2]),
        message="the graphs of part 1 have 9942 values; the manifest says 14910",
        file=TABLE,
    ),
    "a template nobody stored": Damage(
        apply=forge_column("template", lambda digests: ["0" * 64, *digests[1:]]),
        message="1 templates are first needed here; the manifest says 0",
        file=TABLE,
    ),
    "lengths that are not the template's": Damage(
        apply=other_lengths, message=r"its length is not 4970|values have shape \(4969,\)", file="-00000"
    ),
    "an array of an absurd shape": Damage(
        apply=forge_json(ARRAY, lambda document: document.update(shape=[2**40])),
        message=r"shape is \[1099511627776\]; the format has \[14910\]",
        file=ARRAY,
    ),
    "an array of float64": Damage(
        apply=forge_json(ARRAY, lambda document: document.update(data_type="float64")),
        message="data_type is float64; the format has float32",
        file=ARRAY,
    ),
    "an array of other codecs": Damage(
        apply=forge_json(ARRAY, lambda document: document["codecs"][0]["configuration"]["codecs"].pop()),
        message="the format has .*'crc32c'",
        file=ARRAY,
    ),
    "an array without a description": Damage(
        apply=forge_file(ARRAY, lambda _: b"[]"), message="not the description of an array", file=ARRAY
    ),
    "a shard of nothing": Damage(
        apply=forge_file(SHARD, lambda content: bytes(len(content))), message="cannot be decoded", file="values/00001"
    ),
    "a template of another text": Damage(
        apply=forge_column("document", lambda texts: texts[::-1], TEMPLATES),
        message="not the digest of its text",
        file=TEMPLATES,
    ),
    "a template with a space more": Damage(
        apply=forge_column("document", lambda texts: [f"{text} " for text in texts], TEMPLATES),
        message="not the text of a template: .*the canonical form",
        file=TEMPLATES,
    ),
    "a template that is none": Damage(
        apply=forge_column("document", lambda texts: ["{}" for _ in texts], TEMPLATES),
        message="not the text of a template",
        file=TEMPLATES,
    ),
    "a template of another name": Damage(
        apply=forge_column("template", lambda digests: ["0" * 64 for _ in digests], TEMPLATES),
        message="is not there; table 0 is the first to need it",
        file=TEMPLATES,
    ),
    "attributes of another version": Damage(
        apply=forge_json("zarr.json", lambda document: document["attributes"].update(version=3)),
        message="not the description of a zarr group that a dataset has",
        file="zarr.json",
        reader=False,
    ),
    "a rule for no column": Damage(
        apply=forge_manifest(lambda document: document["options"]["splits"].update(split_width={})),
        message="a rule for split_width, which is no column",
        file=MANIFEST,
        reader=False,
    ),
    "a rule that is none": Damage(
        apply=forge_manifest(lambda document: document["options"]["splits"]["split"].update(val=2)),
        message="the rule of split: not the rule of a split",
        file=MANIFEST,
        reader=False,
    ),
    "a rule that asks for no column": Damage(
        apply=forge_manifest(
            lambda document: document["options"]["splits"]["split"].update(test={"column": "colour", "above": 1.0})
        ),
        message="asks for 'colour', which is no column",
        file=MANIFEST,
        reader=False,
    ),
    "a graph twice": Damage(
        apply=forge_column("graph_id", lambda names: [names[1], *names[1:]]),
        message=r"\(and 1 more\): another graph has the same graph_id",
        reader=False,
    ),
    "a graph of another name": Damage(
        apply=forge_column("graph_id", lambda names: ["net", *names[1:]]),
        message="graph net: its graph_id is not <run_id>@<epoch>",
        reader=False,
    ),
    "a unit on two sides": Damage(
        apply=forge_column("split", lambda sides: ["val", *sides[1:]]),
        message="its unit has other graphs on another side of split",
        reader=False,
    ),
    "a side the hash does not give": Damage(
        apply=forge_column("unit", lambda units: ["elsewhere" for _ in units]),
        message="its split is not what its rule gives",
        reader=False,
    ),
    "an accuracy of two": Damage(
        apply=forge_column("test_accuracy", lambda numbers: [2.0, *numbers[1:]]),
        message="its test_accuracy is not within 0 and 1",
        reader=False,
    ),
    "a value that is not a number": Damage(
        apply=not_a_number, message=r"graph \S+: it has values that are not finite", reader=False
    ),
}
