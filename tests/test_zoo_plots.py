"""The picture of a zoo: which settings it has, that it can be drawn, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.inspect_graphs import inspect
from pipeline.zoo_plots import differing, plot_zoo
from pipeline.zoo_store import create_zoo
from tiny_dataset import write_zoo
from tiny_zoo import TINY, tiny_spec


def test_settings_are_what_differs_between_runs() -> None:
    """Momentum is the same wherever it acts, and so is the width."""
    documents = [
        '{"arguments":{"activation":"relu","width":4,"widths":[4,6]},"family":"x"}',
        '{"arguments":{"activation":"tanh","width":4,"widths":[4]},"family":"x"}',
    ]
    table = pa.table(
        {
            "architecture": documents,
            "config.activation": ["relu", "tanh"],
            "config.momentum": [0.9, None],
            "config.l2": [0.1, 0.2],
        }
    )
    assert differing(table) == {"activation": ["relu", "tanh"], "widths": ["4-6", "4"], "l2": [0.1, 0.2]}


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_zoo_is_drawn(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_zoo(tmp_path / "zoo", tiny_spec(num_runs=12))
    picture = tmp_path / "pictures" / f"zoo{suffix}"
    inspect(tmp_path / "zoo", picture)
    assert capsys.readouterr().out.splitlines()[-1] == f"  picture: {picture}"
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    if suffix == ".png":
        assert len(np.unique(np.asarray(Image.open(picture)))) > 100
    else:
        assert "initialisation" in picture.read_text()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    zoo = create_zoo(tmp_path / "zoo", TINY)
    with pytest.raises(ValueError, match="zoo: no chunk is trained yet; nothing to draw"):
        plot_zoo(zoo, tmp_path / "zoo.png")
    with pytest.raises(ValueError, match="zoo.gif: a picture ends in .png, .svg, .pdf"):
        plot_zoo(zoo, tmp_path / "zoo.gif")
    assert not (tmp_path / "zoo.png").exists()
