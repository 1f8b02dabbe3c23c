"""A zoo of implicit networks at a glance: what some of them show, how good they are, and after how many steps.

    python -m pipeline inspect runs/inr/zoo --plots zoo.png

Reads   the rows of a zoo's finished chunks, and the values of its first networks
Writes  one picture: .png, .svg or .pdf
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32

from pipeline.architectures import Architecture
from pipeline.siren import pixel_coordinates
from pipeline.zoo_plots import BLUE, INK, check_suffix, differing, draw_settings, new_figure, save
from pipeline.zoo_store import Zoo, finished_chunks, read_chunk

SHOWN = 25
"""Networks that are drawn as what they are."""
BARS = 30


def plot_inrs(zoo: Zoo, path: Path) -> None:
    """Draw a zoo of implicit networks into a file.

    Raises:
        ValueError: the suffix is not one that is drawn, or no network is finite.
    """
    check_suffix(path)
    chunks = [read_chunk(zoo, index).rows for index in finished_chunks(zoo)]
    everything = pa.concat_tables(chunks) if chunks else pa.table({"status": []})
    rows = everything.filter(pa.array([status == "ok" for status in everything["status"].to_pylist()], pa.bool_()))
    if not rows.num_rows:
        raise ValueError(f"{zoo.path}: no network is fitted yet without diverging; nothing to draw")
    save(draw(zoo, rows), path)


def draw(zoo: Zoo, rows: pa.Table) -> Any:
    """The figure: three panels about all runs, one for each setting."""
    settings = differing(rows)
    title = f"Zoo {zoo.spec.name!r}: {rows.num_rows:,} implicit networks, steps by setting"
    figure, panels = new_figure(title, 3 + len(settings))
    draw_images(panels[0], zoo)
    steps = rows["step"].to_numpy().astype(np.float64)
    draw_histogram(panels[1], "quality", "PSNR in dB", rows["psnr"].to_numpy())
    draw_histogram(panels[2], "cost", "steps", steps, whole=True)
    draw_settings(panels[3:], zoo, settings, steps, (0.0, 1.05 * float(steps.max())))
    return figure


def draw_images(panel: Any, zoo: Zoo) -> None:
    """The first network of each of some images, as the image that it is."""
    images = rendered(zoo)
    across = int(np.sqrt(SHOWN))
    images += [np.ones_like(images[0])] * (SHOWN - len(images))
    framed = [np.pad(image, [(1, 1), (1, 1), (0, 0)], constant_values=1.0) for image in images]
    lines = [np.concatenate(framed[first : first + across], axis=1) for first in range(0, SHOWN, across)]
    panel.imshow(np.clip((np.concatenate(lines) + 1) / 2, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
    panel.set_title("what networks show", fontsize=10, color=INK)
    panel.set_axis_off()


def rendered(zoo: Zoo) -> list[Float32[np.ndarray, "height width channels"]]:
    """The first networks, one for an image, at the size of the images."""
    channels, height, width = zoo.spec.images.shape
    found: dict[int, np.ndarray] = {}
    for index in finished_chunks(zoo):
        chunk = read_chunk(zoo, index)
        for row in chunk.rows.to_pylist():
            if len(found) == SHOWN:
                return list(found.values())
            if row["status"] == "diverged" or row["image"] in found:
                continue
            network = Architecture.parse(row["architecture"]).build()
            values = torch.tensor(chunk.values[row["offset"] : row["offset"] + row["length"]])
            torch.nn.utils.vector_to_parameters(values, network.parameters())
            with torch.no_grad():
                pixels = network(pixel_coordinates(height, width))
            found[row["image"]] = pixels.reshape(height, width, channels).numpy()
    return list(found.values())


def draw_histogram(panel: Any, title: str, label: str, numbers: np.ndarray, *, whole: bool = False) -> None:
    """How often a number occurs; bars of whole numbers are equally wide."""
    first, beyond = numbers.min(), numbers.max() + 1
    width = max(int(np.ceil((beyond - first) / BARS)), 1)
    bins = np.arange(first, beyond + width, width) - 0.5 if whole else BARS
    panel.hist(numbers, bins=bins, color=BLUE)
    panel.set_title(title, fontsize=10, color=INK)
    panel.set_xlabel(label, fontsize=8, color=INK)
    panel.set_ylabel("runs", fontsize=8, color=INK)
