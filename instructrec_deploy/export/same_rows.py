"""Which tensors of a graph have the same rows: as many, whatever the texts.

A row is all but the last axis. What is known of one such tensor's rows holds for the others, and
need not be computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from instructrec_deploy.export.products import constants_of
from instructrec_deploy.export.unpad import ATTENTION, ORDER, PLACES, ROW_OPS


def same_rows(graph: onnx.GraphProto) -> dict[str, str]:
    """A name for the rows of a tensor; tensors of one name have equally many.

    A tensor of which nothing is known is left out: its rows are its own.
    """
    ranks = {name: len(constant.dims) for name, constant in constants_of(graph).items()}
    found: dict[str, str] = {}
    for node in graph.node:
        rows = _rows_of(node, ranks, found)
        if rows:
            found[node.output[0]] = rows
    return found


def _rows_of(node: onnx.NodeProto, ranks: Mapping[str, int], found: Mapping[str, str]) -> str:
    if node.op_type in ("GatherND", "Gather") and node.input[1] in (PLACES, ORDER):
        return node.input[1]  # one for each place
    if node.op_type == ATTENTION:  # one for each query
        sources = [node.input[0]]
    elif node.op_type == "MatMul":
        sources = [node.input[0]] if ranks.get(node.input[1]) == 2 else []
    elif node.op_type in ROW_OPS:  # a vector or a number is the same for each row
        sources = [name for name in node.input if name and ranks.get(name, 2) > 1]
    else:
        sources = []
    rows = {found.get(name, name) for name in sources}
    return rows.pop() if len(rows) == 1 else ""
