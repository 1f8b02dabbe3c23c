"""Batching: the inverse undoes it, in any mixture of templates."""

from hypothesis import given
from hypothesis import strategies as st

from networks import FACTORIES, template_of
from training.graph_batch import batch_graphs, unbatch_graphs


@given(st.lists(st.sampled_from(list(FACTORIES)), max_size=7))
def test_unbatch_undoes_batch(names: list[str]) -> None:
    graphs = [template_of(name).graph(FACTORIES[name]()) for name in names]
    found = unbatch_graphs(batch_graphs(graphs))
    assert [graph.template.digest for graph in found] == [graph.template.digest for graph in graphs]
    assert all((left.values == right.values).all() for left, right in zip(found, graphs, strict=True))


def test_graphs_of_one_template_are_one_group() -> None:
    names = ["flattening", "small_convolutional", "flattening"]
    batch = batch_graphs([template_of(name).graph(FACTORIES[name]()) for name in names])
    assert [group.place.tolist() for group in batch.groups] == [[0, 2], [1]]


def test_moving_a_batch_moves_every_tensor() -> None:
    batch = batch_graphs([template_of("flattening").graph(FACTORIES["flattening"]())]).to("meta")
    assert {tensor.device.type for group in batch.groups for tensor in (group.values, group.place)} == {"meta"}
