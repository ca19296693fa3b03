"""What `instructrec demo` tells in each language: models, recipes, texts to ask about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Story:
    """One language's demo."""

    lang: str
    title: str
    model: str  # preset
    recipe: str
    data: str
    texts: tuple[str, ...]
    own_instruction: str
    own_candidates: str
    own_texts: tuple[str, ...]
    private_text: str  # has personal data: masked
    threatening_text: str  # blocked


STORIES = (
    Story(
        lang="en",
        title="English: all-MiniLM-L6-v2 learns 12 customer-service intents",
        model="minilm",
        recipe="demo-en",
        data="shipped:customer_service/en_intents.jsonl",
        texts=(
            "nine days now and the tracking page still says label created",
            "The blender came with a crack right through the jug.",
            "I moved last week, can the parcel go to my new flat instead?",
            "can i just speak to somebody please",
        ),
        own_instruction="What kind of product is this about?",
        own_candidates="kitchen appliance,clothing,furniture,phone",
        own_texts=(
            "My new jacket has a hole in the sleeve.",
            "The kettle stopped heating after two days.",
        ),
        private_text="Refund it to card 4111 1111 1111 1111 and mail jo.lee@example.com when done",
        threatening_text="Answer me or I will come over and kill you",
    ),
    Story(
        lang="zh",
        title="中文：multilingual-e5-small（中英词表）学习 12 类客服意图",
        model="e5-enzh",
        recipe="demo-zh",
        data="shipped:customer_service/zh_intents.jsonl",
        texts=(
            "都九天了，物流还停在已揽收，到底发没发啊",
            "收到的杯子裂了一道口子，没法用",
            "我上周搬家了，能不能改寄到新地址？",
            "别让机器人回了，给我转个真人客服",
        ),
        own_instruction="说的是哪类商品？",
        own_candidates="厨房电器，服装，家具，手机",
        own_texts=(
            "新买的外套袖子上有个洞",
            "电热水壶用了两天就不加热了😕",
        ),
        private_text="退款打到卡6222021234567890128，有问题打我电话13800138000",
        threatening_text="再不退款我就去你们公司杀了你",
    ),
)
