"""A graph without padding: the same answers, whoever the neighbours are, and less computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.core.bundle import ENCODER_FILE
from instructrec_deploy.export.graphs import float_graphs
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.export.unpad import unpad_graph
from instructrec_deploy.runtime.engine import pad_rows
from instructrec_deploy.runtime.providers import CPU, open_session
from tests.tiny import LABELS
from tests.unit.export.conftest import tiny_checkpoint

PAD = 0
Outputs = list[npt.NDArray[np.float32]]
TEXTS = [[2, 9, 10, 3], [2, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 3], [2, 3], [2, 77, 78, 79, 3]]


class Graph:
    """A graph, open."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        path = folder / "graph.onnx"
        onnx.save(model, path)
        self._session = open_session(path, providers=[CPU], n_threads=1)

    def read(self, texts: Sequence[Sequence[int]]) -> Outputs:
        """Every output for a padded batch."""
        ids, mask = pad_rows(texts, PAD)
        return self.run(ids, mask)

    def run(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Outputs:
        found: Outputs = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return found


def encoder(folder: Path, family: str = "bert", *, reader_layers: int = 0) -> onnx.ModelProto:
    checkpoint = tiny_checkpoint(folder, family, reader_layers=reader_layers)
    return float_graphs(checkpoint, work=folder)[ENCODER_FILE]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return encoder(tmp_path_factory.mktemp("padded"))


@pytest.fixture(scope="module")
def int8(padded: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return Graph(quantize_graph(unpad_graph(padded))[0], tmp_path_factory.mktemp("int8"))


def real(outputs: Outputs, texts: Sequence[Sequence[int]]) -> Outputs:
    """The outputs for each text: token states cut to its tokens, and vectors."""
    return [
        part[: len(text)] if part.ndim == 2 else part
        for row, text in enumerate(texts)
        for part in (whole[row] for whole in outputs)
    ]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_unpadded_graph_answers_as_the_padded_one(family: str, tmp_path: Path) -> None:
    graph = encoder(tmp_path, family, reader_layers=1)
    unpadded = unpad_graph(graph)
    assert unpadded is not graph
    before, after = (Graph(g, tmp_path).read(TEXTS) for g in (graph, unpadded))
    assert len(after) == 3  # token states, pooled, the reader's lower states
    for one, other in zip(real(before, TEXTS), real(after, TEXTS), strict=True):
        assert np.abs(one - other).max() < 1e-5


def test_a_head_answers_as_before(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path, labels=LABELS)
    graph = float_graphs(checkpoint, work=tmp_path)[ENCODER_FILE]
    before, after = (Graph(g, tmp_path).read(TEXTS)[0] for g in (graph, unpad_graph(graph)))
    assert after.shape == (len(TEXTS), len(LABELS))
    assert np.abs(before - after).max() < 1e-5


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(5, 90), min_size=1, max_size=40), min_size=1, max_size=9),
    st.data(),
)
def test_a_text_is_answered_the_same_whoever_its_neighbours_are(
    int8: Graph, texts: list[list[int]], data: st.DataObject
) -> None:
    rows = [[2, *text, 3] for text in texts]
    row = data.draw(st.integers(0, len(rows) - 1))
    alone = real(int8.read([rows[row]]), [rows[row]])
    together = real(int8.read(rows), rows)[2 * row : 2 * row + 2]
    for one, other in zip(alone, together, strict=True):
        # One of 256 steps may tip where a sum was added in another order: rarely, and this far.
        assert np.abs(one - other).max() < 1e-3


def test_bits_are_equal_at_one_padded_shape_whoever_the_neighbours_are(int8: Graph) -> None:
    text, long = [2, 9, 10, 11, 3], [2, *range(40, 60), 3]
    first = real(int8.read([text, long, [2, 3]]), [text])
    second = real(int8.read([text, [5] * len(long), [2, *range(7, 20), 3]]), [text])
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_padding_may_stand_anywhere(padded: onnx.ModelProto, tmp_path: Path) -> None:
    ids = np.array([[0, 0, 2, 9, 3], [2, 9, 0, 3, 0]])
    mask = (ids > 0).astype(np.int64)
    before, after = (Graph(g, tmp_path).run(ids, mask)[1] for g in (padded, unpad_graph(padded)))
    assert np.abs(before - after).max() < 1e-5


def test_products_see_real_tokens_alone(padded: onnx.ModelProto, tmp_path: Path) -> None:
    model = unpad_graph(padded)
    sources = [n.input[0] for n in model.graph.node if n.op_type == "MatMul"]
    assert len(sources) == 12  # six of each layer
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in set(sources)
    )
    for values in Graph(model, tmp_path).read(TEXTS)[2:]:
        assert values.shape[0] == sum(map(len, TEXTS))


def test_a_graph_of_another_form_stays_as_it_is(tmp_path: Path) -> None:
    plain = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "plain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", 4])],
            [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
        )
    )
    assert unpad_graph(plain) is plain


def test_the_graph_given_in_is_left_as_it_was(padded: onnx.ModelProto) -> None:
    before = padded.SerializeToString()
    unpad_graph(padded)
    assert padded.SerializeToString() == before
