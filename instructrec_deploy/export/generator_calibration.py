"""What the graphs of a model that writes read while their int8 is calibrated.

Each text alone, so that nothing is padded; behind it stand the tokens that the checkpoint itself
writes, and the decoder reads all of them in one step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from instructrec_deploy.core.bundle import DECODER_FILE, ENCODER_FILE
from instructrec_deploy.export.equalize import Feed
from instructrec_deploy.export.generator_graphs import read_by_decoder
from instructrec_deploy.models.generator import Generator
from instructrec_deploy.runtime.decoding import CROSS, PAST, cache_names

N_WRITTEN = 16  # tokens behind each text
# Like what a tuned model is asked; none of the texts that the parity gate measures.
CALIBRATION_TEXTS = (
    "Translate to Chinese: The train to the airport leaves every twenty minutes.",
    "Summarize: The council met on Tuesday evening. After three hours of debate it voted to repair "
    "the old bridge, and to close it to lorries until the work is done next spring.",
    "Question: Who wrote the letter? Context: Maria found a letter from her brother in the attic.",
    "Write a title for this review: the headphones are light and sound great, but they squeak.",
    'Is this message polite? "Send me the report now, I will not ask again."',
    "List three things to pack for a weekend in the mountains.",
    "def area(width, height):",
    "Once upon a time there was a lighthouse keeper who collected",
    "Dear customer, thank you for your order of 12 June. Your invoice of $1,240.50 is attached.",
    "The recipe needs 200 g of flour, two eggs, a pinch of salt, and",
    "把下面的句子翻译成英文：图书馆周末上午九点开门。",
    "用一句话概括：市政府昨天宣布，明年将新增三条地铁线路，并延长夜间运营时间，以缓解早晚高峰的拥堵。",
    "问题：会议改到什么时候？内容：原定周三的会议因故推迟到下周五下午两点。",
    "这条评论是好评还是差评？“包装破了，客服也不回消息。”",
    "请写出三个适合老年人的运动项目。",
    "从前有一位钟表匠，他住在",
)


@torch.no_grad()
def calibration_feeds(
    generator: Generator, texts: Sequence[str] = CALIBRATION_TEXTS
) -> dict[str, list[Feed]]:
    """Inputs of each graph, by its path in the bundle; one feed for each text."""
    section, model = generator.section, generator.model
    feeds: dict[str, list[Feed]] = defaultdict(list)
    empty = np.zeros((1, section.n_heads, 0, section.head_size), np.float32)
    past = dict.fromkeys(cache_names(PAST, section.n_layers), empty)
    for encoding in generator.open_tokenizer().encode_texts(texts, use_offsets=False):
        ids = torch.tensor([encoding.ids])
        written = _written(generator, ids)
        if generator.kind == "causal":
            known = written.numpy()
            feeds[DECODER_FILE].append(
                {"input_ids": known, "attention_mask": np.ones_like(known), **past}
            )
            continue
        mask = torch.ones_like(ids)
        read = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        feeds[ENCODER_FILE].append(read)
        cross = [tensor.numpy() for tensor in read_by_decoder(model, ids, mask)]
        feeds[DECODER_FILE].append(
            {
                "input_ids": written.numpy(),
                "attention_mask": read["attention_mask"],
                **past,
                **dict(zip(cache_names(CROSS, section.n_layers), cross, strict=True)),
            }
        )
    return dict(feeds)


def _written(generator: Generator, ids: Tensor) -> Tensor:
    """[1, S]: what the decoder reads, the checkpoint's own greedy tokens at its end."""
    before = 1 if generator.kind == "seq2seq" else ids.shape[1]
    room = generator.section.max_positions or before + N_WRITTEN
    n_new = min(N_WRITTEN, room - before)
    if n_new < 1:
        return ids
    found: Tensor = generator.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=n_new,
        do_sample=False,
        num_beams=1,
    )
    return found
