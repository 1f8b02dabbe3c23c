"""What the specifications of all zoos have in common: their document, its digest, and chunks of runs.

Reads   nothing
Writes  nothing
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any, TypeVar

Spec = TypeVar("Spec")


def document_of(spec: Any) -> dict[str, Any]:
    """A frozen record as plain JSON values, without what is not given."""
    given = asdict(spec, dict_factory=lambda items: {name: value for name, value in items if value is not None})
    return json.loads(json.dumps(given))


def digest_of(document: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a specification's document, in hexadecimal."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def parse_as(kind: type[Spec], document: dict[str, Any]) -> Spec:
    """The inverse of `document_of`, checked as a configuration file is."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--spec", type=kind)
    return parser.instantiate(parser.parse_object({"spec": document})).spec


def chunks_in(num_runs: int, runs_per_chunk: int) -> int:
    """How many chunks there are; the last may be smaller."""
    return -(-num_runs // runs_per_chunk)


def chunk_of(index: int, num_runs: int, runs_per_chunk: int) -> range:
    """The run indices of a chunk."""
    first = index * runs_per_chunk
    return range(first, min(first + runs_per_chunk, num_runs))
