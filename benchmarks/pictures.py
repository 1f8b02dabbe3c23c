"""The pictures of parameter graphs in the documentation, and the networks they show.

    python -m benchmarks.pictures
    python -m pipeline trace benchmarks.pictures:BasicBlock --input 1,16,16,16 --check --draw block.svg

Reads   nothing
Writes  docs/images/draw-basicblock.png, draw-transformer.png, draw-mlp.png
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pipeline.tracing import trace

IMAGES = Path(__file__).parents[1] / "docs" / "images"


class BasicBlock(nn.Module):
    """Of a ResNet: two convolutions with batch norm, and a projection as a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.shortcut = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))

    def forward(self, maps: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(maps)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.shortcut(maps))


class TokenClassifier(nn.Module):
    """One encoder layer of four heads on sixteen tokens with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(48, 32)
        self.position = nn.Parameter(torch.zeros(1, 16, 32))
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True)
        self.classify = nn.Linear(32, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classify(self.layer(self.embed(tokens) + self.position).mean(1))


class NormedMLP(nn.Module):
    """Two hidden layers, the first with a layer norm; small enough to draw every edge."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(4, 7), nn.LayerNorm(7)
        self.middle, self.output = nn.Linear(7, 5), nn.Linear(5, 3)
        nn.init.uniform_(self.norm.weight, 0.6, 0.8)
        nn.init.uniform_(self.norm.bias, -0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(functional.relu(self.middle(functional.gelu(self.norm(self.hidden(x))))))


def main() -> None:
    """Draw all three."""
    torch.manual_seed(0)
    mlp = NormedMLP()
    drawings = {
        "draw-basicblock.png": trace(BasicBlock(), torch.zeros(1, 16, 16, 16)),
        "draw-transformer.png": trace(TokenClassifier(), torch.zeros(1, 16, 48)),
        "draw-mlp.png": trace(mlp, torch.zeros(1, 4)).graph(mlp),
    }
    for name, drawing in drawings.items():
        drawing.draw(IMAGES / name)
        with Image.open(IMAGES / name) as picture:
            few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(IMAGES / name, optimize=True)  # a third of the size; other methods lose the pale fills or the scale


if __name__ == "__main__":
    main()
