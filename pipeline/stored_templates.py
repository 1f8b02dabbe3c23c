"""The templates of a dataset, by digest: read when they are asked for, and kept as long as there is room.

Reads   ``templates/`` of a dataset, each file compared with the manifest
Writes  nothing
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import lru_cache

import pyarrow as pa

from pipeline.checked_files import CheckedFiles
from pipeline.dataset_manifest import templates_file
from pipeline.dataset_tables import TEMPLATE_COLUMNS, read_parquet
from pipeline.parameter_graph import GraphTemplate
from pipeline.template_document import read_document

TEMPLATE_BYTES = 2**30
"""Room for templates that were read, as `size_of` estimates them: some ten thousand small ones."""
FILES_IN_MEMORY = 2


class Templates(Mapping):  # of what: only reading tells, so no parameters that a type checker would read for
    """Templates by digest. Each is stored with the first table that needs it; the last that were read are kept."""

    def __init__(self, files: CheckedFiles, table_of: Mapping[str, int]) -> None:
        self._files = files
        self._table_of = table_of
        self._kept: OrderedDict[str, GraphTemplate] = OrderedDict()
        self._room = TEMPLATE_BYTES
        self._rows = lru_cache(FILES_IN_MEMORY)(self._read_rows)

    def __getitem__(self, digest: str) -> GraphTemplate:
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest]
        template = self._kept[digest] = self._read_template(digest)
        self._room -= size_of(template)
        while self._room < 0 and len(self._kept) > 1:
            self._room += size_of(self._kept.popitem(last=False)[1])
        return template

    def __iter__(self) -> Iterator[str]:
        return iter(self._table_of)

    def __len__(self) -> int:
        return len(self._table_of)

    def _read_rows(self, table: int) -> tuple[pa.Table, dict[str, int]]:
        """The texts that are stored with a table, and the row of each."""
        name = templates_file(table)
        num_templates = self._files.manifest.tables[table].num_templates
        rows = read_parquet(self._files.root / name, self._files.read(name), TEMPLATE_COLUMNS, num_templates)
        return rows, {digest: row for row, digest in enumerate(rows["template"].to_pylist())}

    def _read_template(self, digest: str) -> GraphTemplate:
        table = self._table_of[digest]
        path = self._files.root / templates_file(table)
        rows, row_of = self._rows(table)
        if digest not in row_of:
            raise ValueError(f"{path}: template {digest} is not there; table {table} is the first to need it")
        try:
            template = read_document(rows["document"][row_of[digest]].as_py())
        except ValueError as error:
            raise ValueError(f"{path}: template {digest}: {error}") from error
        if template.digest != digest:
            raise ValueError(f"{path}: template {digest}: this is not the digest of its text")
        return template


def size_of(template: GraphTemplate) -> int:
    """Bytes a template may come to take: the arrays of its blocks, and 8 for the place of each edge's value."""
    per_source = sum(block.sources.nbytes for block in template.blocks) * 6
    per_target = sum(block.targets.nbytes for block in template.blocks) * 2
    return 8 * template.num_edges + per_source + per_target
