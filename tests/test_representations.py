"""Representing metanetworks: every layer of the right graphs, in any batches; the untrained twin; clear refusals."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.representation_store import DOCUMENT, open_representation
from analysis.representations import INPUT, represent, untrained
from pipeline.graph_store import open_graphs
from tiny_dataset import make_tiny_dataset
from training.gmn import GraphMetanetwork, GraphMetanetworkSettings
from training.graph_batch import batch_graphs
from training.tasks import OptimizerSettings, PredictColumn

SETTINGS = GraphMetanetworkSettings(width=5, depth=2)
LAYERS = [INPUT, *(f"layer{number}.{part}" for number in range(3) for part in ("nodes", "edges")), "graph", "output"]


@pytest.fixture(name="dataset")
def shared_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs of three checkpoints, two of them diverged."""
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(name="checkpoint", scope="module")
def shared_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a metanetwork whose scales are not those of a fresh one."""
    with fixed_seed(1):
        task = PredictColumn(network=SETTINGS, optimizer=OptimizerSettings())
    with torch.no_grad():
        task.network.edge_encoder.value_scale.fill_(0.37)
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    settings = {"network": asdict(SETTINGS), "optimizer": asdict(OptimizerSettings())}
    torch.save({"hyper_parameters": settings, "state_dict": task.state_dict()}, path)
    return path


@contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def network_of(checkpoint: Path) -> GraphMetanetwork:
    network = GraphMetanetwork(SETTINGS)
    states = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): states[name] for name in states if "network." in name})
    return network.eval()


def test_every_layer_is_the_networks_own_of_that_very_graph(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    represent(checkpoint, dataset, tmp_path / "net-0", split="train")
    stored, train = open_representation(tmp_path / "net-0"), open_graphs(dataset).split("train")
    assert [layer.name for layer in stored.layers] == LAYERS
    assert stored.samples()["sample_id"].to_pylist() == train.table["graph_id"].to_pylist()
    assert stored.samples()["unit"].to_pylist() == train.table["unit"].to_pylist()
    with torch.no_grad():
        for row, graph in enumerate(train):
            expected = network_of(checkpoint).representations(batch_graphs([graph]))
            for name in LAYERS[1:]:
                assert stored.features(name)[row] == pytest.approx(expected[name][0].numpy(), rel=1e-4, abs=1e-5)
            assert np.array_equal(stored.features(INPUT)[row], graph.values)


def test_batches_change_nothing(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    represent(checkpoint, dataset, tmp_path / "large", split="train")
    represent(checkpoint, dataset, tmp_path / "single", split="train", values_per_batch=1)
    large, single = open_representation(tmp_path / "large"), open_representation(tmp_path / "single")
    for name in LAYERS:
        assert single.features(name) == pytest.approx(large.features(name), rel=1e-4, abs=1e-5)


def test_epochs_choose_checkpoints(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    represent(checkpoint, dataset, tmp_path / "net", split="train", epochs=[2])
    samples = open_representation(tmp_path / "net").samples()
    assert {sample.partition("@")[2] for sample in samples["sample_id"].to_pylist()} == {"2"}
    assert len(set(samples["unit"].to_pylist())) == samples.num_rows
    with pytest.raises(ValueError, match=r"no checkpoint of epoch 5 in this split; found 0, 1, 2"):
        represent(checkpoint, dataset, tmp_path / "other", split="train", epochs=[0, 5])


def test_it_says_what_it_is_made_of_and_what_each_layer_is(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    represent(checkpoint, dataset, tmp_path / "net", split="train")
    stored = open_representation(tmp_path / "net")
    assert stored.made_of["graphs"] == open_graphs(dataset).files.manifest.digest
    assert stored.made_of["settings"] == asdict(SETTINGS)
    assert (stored.made_of["weights"], stored.made_of["split"], stored.made_of["epochs"]) == ("trained", "train", "all")
    readings = {layer.name: layer.reading for layer in stored.layers}
    assert readings["layer1.nodes"] == "mean over nodes"
    assert all(readings.values())


def test_the_untrained_twin_shares_scales_and_no_weight(checkpoint: Path) -> None:
    trained = network_of(checkpoint)
    state = torch.random.get_rng_state()
    twin, again, other = untrained(trained, 3), untrained(trained, 3), untrained(trained, 4)
    assert torch.equal(twin.edge_encoder.value_scale, trained.edge_encoder.value_scale)
    assert torch.equal(twin.head.weight, again.head.weight)
    for different in (trained, other):
        assert not torch.equal(twin.head.weight, different.head.weight)
    assert not twin.training
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's random numbers are touched"


def test_the_untrained_twin_is_stored_as_such(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    represent(checkpoint, dataset, tmp_path / "trained", split="train")
    represent(checkpoint, dataset, tmp_path / "untrained", split="train", untrained_seed=3)
    trained, twin = open_representation(tmp_path / "trained"), open_representation(tmp_path / "untrained")
    assert twin.made_of["weights"] == "untrained, seed 3"
    assert np.array_equal(twin.features(INPUT), trained.features(INPUT))
    assert not np.allclose(twin.features("graph"), trained.features("graph"))


def test_a_second_run_does_nothing_and_says_so(
    dataset: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    represent(checkpoint, dataset, tmp_path / "net", split="train")
    num_graphs = len(open_graphs(dataset).split("train"))
    assert f"9 layers of net for {num_graphs} graphs of" in capsys.readouterr().out
    before = (tmp_path / "net" / DOCUMENT).stat()
    represent(checkpoint, dataset, tmp_path / "net", split="train")
    assert "Nothing to do" in capsys.readouterr().out
    assert (tmp_path / "net" / DOCUMENT).stat() == before


def test_other_settings_or_damage_make_it_again(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    represent(checkpoint, dataset, tmp_path / "net", split="train")
    first = open_representation(tmp_path / "net")
    represent(checkpoint, dataset, tmp_path / "net", split="train", epochs=[0])
    assert open_representation(tmp_path / "net").num_samples < first.num_samples
    (tmp_path / "net" / "graph.npy").unlink()
    represent(checkpoint, dataset, tmp_path / "net", split="train")
    assert open_representation(tmp_path / "net") == first


def test_a_folder_of_something_else_is_not_touched(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one").write_text("dear")
    with pytest.raises(ValueError, match=r"letters exists and is not a representation; choose another folder"):
        represent(checkpoint, dataset, tmp_path / "letters", split="train")
    assert (tmp_path / "letters" / "one").read_text() == "dear"


def test_graphs_with_other_tensors_leave_the_input_out(
    dataset: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every template is made to look like one of tensors of its own."""
    templates = type(open_graphs(dataset).templates)
    original = templates.__getitem__
    seen: list[str] = []

    class Other:
        def __init__(self, digest: str) -> None:
            self.tensors = digest

    def other(self: object, digest: str) -> object:
        seen.append(digest)
        return Other(digest) if len(seen) <= 2 else original(self, digest)  # type: ignore[arg-type]

    monkeypatch.setattr(templates, "__getitem__", other)
    represent(checkpoint, dataset, tmp_path / "net", split="train")
    assert [layer.name for layer in open_representation(tmp_path / "net").layers] == LAYERS[1:]
    assert "The raw input is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"best\.ckpt: no such checkpoint"),
        (b"PK", r"best\.ckpt: not a checkpoint that python -m training fit wrote"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused(
    content: bytes | None, message: str, dataset: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        represent(tmp_path / "best.ckpt", dataset, tmp_path / "net")


def test_an_unknown_split_is_refused(dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'tset' has no graphs"):
        represent(checkpoint, dataset, tmp_path / "net", split="tset")
