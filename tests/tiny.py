"""Tiny bundles for tests: random weights, a small English and Chinese WordPiece, made in a moment.

The weights are random but seeded, and the model is almost a bag of words, so a text is nearest to
the candidate it shares words with: "I lost my card" is answered "card lost". Nothing here is
trained, nothing is downloaded.

    folder = write_tiny_bundle(tmp_path / "tiny")                             # instruction-encoder
    folder = write_tiny_bundle(tmp_path / "head", kind="sequence-classification")
    folder = write_tiny_bundle(tmp_path / "plain", has_fusion=False, safety='version = "2"\\n')
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

HIDDEN = 32
HEADS = 2
MAX_TOKENS = 64
SCALE = 20.0
LABELS = (
    "card lost",
    "card arrival",
    "refund",
    "exchange rate",
    "change pin",
    "余额",
    "转账失败",
)
SENTIMENTS = ("positive", "negative")
WORDS = (
    "i my the a is are was it to of in on and not no yes you your me we what which how when where "
    "why who do does this that text have has had can could would please with for from at about "
    "lost lose card stolen arrival arrive arrived refund money back exchange rate change pin "
    "transfer failed balance account help want need great good bad terrible love hate awful nice "
    "happy sad positive negative sentiment intent customer question answer phone call number bank "
    "payment pay top up fee charge wrong new old get out very really so service app today week"
)
CHINESE = (
    "我的卡丢了余额查询转账失败请问退款汇率修改密码银行户你好吗不是有没在这那什么怎样为很喜欢讨厌"
    "开心难过客服问题回答正面负面情感意图是电话号钱付费用今天新旧快慢服务好差"
)
PUNCTUATION = ".,!?:;'\"-()[]@#$%&*/+=。,！？：；、（）"
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

TASKS_TOML = f"""default_task = "intent"

[tasks.intent]
labels = {json.dumps(LABELS, ensure_ascii=False)}
[tasks.intent.instructions]
en = ["What does the customer want?"]
zh = ["客户想要什么？"]

[tasks.sentiment]
labels = {json.dumps(SENTIMENTS)}
temperature = 2.0
[tasks.sentiment.descriptions]
positive = "good great love happy nice 喜欢"
negative = "bad terrible hate sad awful 讨厌"
[tasks.sentiment.instructions]
en = ["What is the sentiment of this text?"]
"""
HEAD_TASKS_TOML = f"""default_task = "intent"

[tasks.intent]
labels = {json.dumps(LABELS, ensure_ascii=False)}
[tasks.intent.instructions]
en = ["What does the customer want?"]
"""


def write_tiny_bundle(
    root: Path,
    *,
    kind: str = "instruction-encoder",
    has_fusion: bool = True,
    max_tokens: int = MAX_TOKENS,
    instruction_weight: float = 0.1,
    tasks_toml: str = "",
    safety: str = 'version = "1"\n',
    golden: Sequence[Mapping[str, Any]] = (),
    score_tolerance: float = 1e-3,
    name: str = "tiny",
    version: str = "",
    seed: int = 7,
) -> Path:
    """Write a bundle folder that `open_bundle` accepts, and return it.

    Args:
        root: the folder; made where missing.
        kind: "instruction-encoder" or "sequence-classification" (whose labels are `LABELS`).
        has_fusion: whether an instruction encoder has `prepare.onnx` and `fusion.onnx`.
        tasks_toml, safety: content of those files; "" for tasks means the default tasks.
        golden: lines of golden.jsonl.
        version: "" means a hash of graphs and tasks; another seed is another version.
    """
    is_head = kind == "sequence-classification"
    (root / "graphs").mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(root / "tokenizer.json"))
    rng = np.random.default_rng(seed)
    n_labels = len(LABELS) if is_head else 0
    encoder = encoder_graph(rng, tokenizer.get_vocab_size(), max_tokens, n_labels=n_labels)
    onnx.save(encoder, root / "graphs" / "encoder.onnx")
    if has_fusion and not is_head:
        prepare, fusion = fusion_graphs(rng)
        onnx.save(prepare, root / "graphs" / "prepare.onnx")
        onnx.save(fusion, root / "graphs" / "fusion.onnx")
    tasks = tasks_toml or (HEAD_TASKS_TOML if is_head else TASKS_TOML)
    (root / "tasks.toml").write_text(tasks, encoding="utf-8")
    (root / "safety.toml").write_text(safety, encoding="utf-8")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in golden]
    (root / "golden.jsonl").write_text("".join(lines), encoding="utf-8")
    model = {
        "kind": kind,
        "precision": "fp32",
        "hidden_size": HIDDEN,
        "max_tokens": max_tokens,
        "pad_id": 0,
        "instruction_weight": instruction_weight,
        "has_fusion": has_fusion and not is_head,
        "score_scale": SCALE,
        "base": "tiny",
        "n_parameters": tokenizer.get_vocab_size() * HIDDEN,
    }
    seal(root, name=name, version=version, model=model, score_tolerance=score_tolerance)
    return root


def seal(root: Path, **changes: Any) -> None:
    """Write bundle.json anew from the files there; `changes` replace keys of the old one."""
    path = root / "bundle.json"
    raw: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    raw = {"format_version": 1, "created": "2026-01-01T00:00:00Z"} | raw | changes
    files: dict[str, dict[str, Any]] = {
        file.relative_to(root).as_posix(): {
            "size_bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(root.rglob("*"))
        if file.is_file() and file != path
    }
    raw["files"] = files
    hashes = "".join(v["sha256"] for k, v in files.items() if "graphs" in k or k == "tasks.toml")
    raw["version"] = raw.get("version") or hashlib.sha256(hashes.encode()).hexdigest()[:12]
    path.write_text(json.dumps(raw, indent=1), encoding="utf-8")


def tiny_tokenizer() -> Tokenizer:
    """BERT's way of cutting, with a vocabulary of a few hundred pieces."""
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*control, *WORDS.split(), *CHINESE, *PUNCTUATION, *CHARACTERS]
    pieces += [f"##{c}" for c in CHARACTERS]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return tokenizer


class Graph:
    """Collects nodes and weights of one ONNX graph; each call returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def const(self, value: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def model(
        self, inputs: Mapping[str, Sequence[Any]], outputs: Mapping[str, Sequence[Any]]
    ) -> onnx.ModelProto:
        """Close the graph. Names of int64 inputs are those of the encoder's ids and mask."""
        whole = ("input_ids", "attention_mask")
        kinds = {n: TensorProto.INT64 if n in whole else TensorProto.FLOAT for n in inputs}
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(n, kinds[n], list(s)) for n, s in inputs.items()],
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s))
                for n, s in outputs.items()
            ],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def encoder_graph(
    rng: np.random.Generator, n_vocab: int, max_tokens: int, *, n_labels: int = 0
) -> onnx.ModelProto:
    """Embedding, one masked self-attention, layer norm, mean pooling; a head where `n_labels`.

    input_ids, attention_mask [B, T] -> token_states [B, T, H], pooled [B, H]; or logits [B, C].
    """
    g = Graph()

    def weight(*shape: int, std: float) -> str:
        return g.const(rng.normal(0.0, std, shape).astype(np.float32))

    axis1, axis2 = g.const(np.array([1], np.int64)), g.const(np.array([2], np.int64))
    n_tokens = g.op("Gather", g.op("Shape", "input_ids"), g.const(np.int64(1)))
    positions = g.op("Range", g.const(np.int64(0)), n_tokens, g.const(np.int64(1)))
    x = g.op("Gather", weight(n_vocab, HIDDEN, std=1.0), "input_ids")
    x = g.op("Add", x, g.op("Gather", weight(max_tokens, HIDDEN, std=0.05), positions))
    mask = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    one, minus = g.const(np.float32(1.0)), g.const(np.float32(-1e4))
    bias = g.op("Unsqueeze", g.op("Mul", g.op("Sub", one, mask), minus), axis1)
    query, key, value = (g.op("MatMul", x, weight(HIDDEN, HIDDEN, std=0.2)) for _ in range(3))
    scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 2, 1]))
    scores = g.op("Div", scores, g.const(np.float32(HIDDEN**0.5)))
    attention = g.op("Softmax", g.op("Add", scores, bias), axis=-1)
    y = g.op(
        "Add",
        x,
        g.op("Mul", g.op("MatMul", attention, value), g.const(np.float32(0.3))),
    )
    ones, zeros = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
    norm = (g.const(ones), g.const(zeros))
    states = g.op("LayerNormalization", y, *norm, out="token_states", axis=-1)
    weights = g.op("Unsqueeze", mask, axis2)
    total = g.op("ReduceSum", g.op("Mul", states, weights), axis1, keepdims=0)
    mean = g.op("Div", total, g.op("ReduceSum", weights, axis1, keepdims=0))
    length = g.op("ReduceL2", mean, axes=[1], keepdims=1)
    pooled = g.op("Div", mean, length, out="pooled")
    inputs = {"input_ids": ("B", "T"), "attention_mask": ("B", "T")}
    if n_labels:
        g.op("MatMul", pooled, weight(HIDDEN, n_labels, std=1.0), out="logits")
        return g.model(inputs, {"logits": ("B", n_labels)})
    return g.model(inputs, {"token_states": ("B", "T", HIDDEN), "pooled": ("B", HIDDEN)})


def fusion_graphs(rng: np.random.Generator) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """prepare.onnx and fusion.onnx: what LateFusion does, with an output that is not zero."""

    def weight(g: Graph, std: float) -> str:
        return g.const(rng.normal(0.0, std, (HIDDEN, HIDDEN)).astype(np.float32))

    g = Graph()
    g.op("MatMul", "candidate_vectors", weight(g, 0.3), out="fusion_queries")
    g.op("MatMul", "candidate_vectors", weight(g, 0.05), out="fusion_values")
    rows = ("C", HIDDEN)
    prepare = g.model({"candidate_vectors": rows}, {"fusion_queries": rows, "fusion_values": rows})
    g = Graph()
    depth = HIDDEN // HEADS
    per_token = g.const(np.array([0, 0, HEADS, depth], np.int64))
    per_candidate = g.const(np.array([-1, HEADS, depth], np.int64))

    def heads(std: float) -> str:
        tensor = g.op("MatMul", "token_states", weight(g, std))
        return g.op("Transpose", g.op("Reshape", tensor, per_token), perm=[0, 2, 3, 1])

    def split(name: str) -> str:
        return g.op("Transpose", g.op("Reshape", name, per_candidate), perm=[1, 0, 2])

    attention = g.op("MatMul", split("fusion_queries"), heads(0.3))  # [B, N, C, T]
    mask = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    bias = g.op("Sub", g.const(np.float32(1.0)), mask)
    bias = g.op("Unsqueeze", bias, g.const(np.array([1, 2], np.int64)))
    bias = g.op("Mul", bias, g.const(np.float32(-1e4)))
    attention = g.op("Div", attention, g.const(np.float32(depth**0.5)))
    weights = g.op("Softmax", g.op("Add", attention, bias), axis=-1)
    values = g.op("MatMul", split("fusion_values"), heads(0.3))
    fused = g.op(
        "ReduceSum",
        g.op("Mul", weights, values),
        g.const(np.array([1, 3], np.int64)),
        keepdims=0,
    )
    turned = g.op("Transpose", "candidate_vectors", perm=[1, 0])
    cosine = g.op("Mul", g.op("MatMul", "pooled", turned), g.const(np.float32(SCALE)))
    g.op("Add", cosine, fused, out="scores")
    fusion = g.model(
        {
            "token_states": ("B", "T", HIDDEN),
            "attention_mask": ("B", "T"),
            "pooled": ("B", HIDDEN),
            "candidate_vectors": rows,
            "fusion_queries": rows,
            "fusion_values": rows,
        },
        {"scores": ("B", "C")},
    )
    return prepare, fusion
