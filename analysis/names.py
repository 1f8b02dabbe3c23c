"""Names as a reader of tables and pictures wants them.

Reads   names of folders and layers
Writes  text
"""

import re
from collections.abc import Sequence


def readable(name: str) -> str:
    """Without the signs that stand for spaces: ``weight_statistics`` is "weight statistics"."""
    return name.replace("-", " ").replace("_", " ")


def layer_title(layer: str) -> str:
    """``layer1.nodes`` is "layer 1 nodes"."""
    return re.sub(r"(?<=[a-z])(?=\d)", " ", readable(layer.replace(".", " ")))


def by_kind(layers: Sequence[str]) -> list[int]:
    """The places of the layers, those of one kind (``nodes``, the last part of the name) next to each other."""
    kinds = list(dict.fromkeys(layer.rpartition(".")[2] for layer in layers))
    return sorted(range(len(layers)), key=lambda place: kinds.index(layers[place].rpartition(".")[2]))


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", title).strip("-.")


def counted(number: int, noun: str) -> str:
    """``1 network``, ``1,440 networks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def words(items: Sequence[object]) -> str:
    """``1, 4 and 16``."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
