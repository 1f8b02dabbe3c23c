"""The values of a part as a zarr array: its files, as docs/stores.md has them, and back.

Reads   the content of files
Writes  nothing: `encode_values` gives the content of files
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32
from zarr.abc.buffer import Buffer
from zarr.buffer import cpu
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from pipeline.dataset_manifest import CHUNK_FLOATS, SHARD_FLOATS, Dtype
from pipeline.places import Place

TYPE_SIZE: dict[Dtype, int] = {"float32": 4, "float16": 2}


def encode_values(values: Float32[np.ndarray, " num_values"], dtype: Dtype = "float32") -> dict[str, bytes]:
    """The files of a zarr array of these values, by their paths in its folder; rounded if ``dtype`` is float16."""
    store: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(store),
        shape=values.shape,
        dtype=dtype,
        chunks=(CHUNK_FLOATS,),
        shards=(SHARD_FLOATS,),
        compressors=[BloscCodec(typesize=TYPE_SIZE[dtype], cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
        filters=None,
        fill_value=np.nan,
    )
    array[:] = values.astype(dtype, copy=False)
    return {name: content.to_bytes() for name, content in store.items()}


def decode_values(
    folder: Place, contents: Mapping[str, bytes], num_values: int, dtype: Dtype = "float32"
) -> Float32[np.ndarray, " num_values"]:
    """The inverse of `encode_values`, always as float32; ``folder`` is where the files came from.

    Raises:
        ValueError: the array is not of the format, or has another length.
    """
    expected = array_document(num_values, dtype)
    try:
        document = json.loads(contents["zarr.json"])
        found = {name: document.get(name) for name in expected}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'zarr.json'}: not the description of an array: {error}") from error
    for name in expected:
        if json.dumps(found[name], sort_keys=True) != json.dumps(expected[name], sort_keys=True):  # 1.0 is not 1
            raise ValueError(
                f"{folder / 'zarr.json'}: {name} is {found[name]!s:.1000}; the format has {expected[name]}"
            )
    own = {**contents, "zarr.json": json.dumps(expected).encode()}  # what else the file says is not for zarr
    store = MemoryStore({name: cpu.Buffer.from_bytes(content) for name, content in own.items()}, read_only=True)
    try:
        return np.asarray(zarr.open_array(store, mode="r")[:]).astype(np.float32, copy=False)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: cannot be decoded: {' '.join(str(error).split())}") from error


def array_document(num_values: int, dtype: Dtype = "float32") -> dict[str, Any]:
    """What the zarr.json of a part's array must say."""
    little, checksum = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    blosc = {"typesize": TYPE_SIZE[dtype], "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    sharding = {
        "chunk_shape": [CHUNK_FLOATS],
        "codecs": [little, {"name": "blosc", "configuration": blosc}, checksum],
        "index_codecs": [little, checksum],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [num_values],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SHARD_FLOATS]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
