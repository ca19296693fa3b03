"""Texts an export is checked, calibrated and signed with: the run's own, or a shipped list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from instructrec_deploy.core.errors import RequestError, RowInvalid
from instructrec_deploy.core.manifest import TaskBook
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.task import TaskKind

SAMPLES_FILE = "samples.jsonl"
QUESTIONS = {"en": "What happened?", "zh": "发生了什么？"}  # where a run kept none of its own


class Sample(NamedTuple):
    """What a request brings, and what is asked about it where the task itself does not say."""

    request: Request
    question: str = ""


ENGLISH = (
    "I lost my card yesterday and need a new one.",
    "Where is my parcel? It should have arrived on Monday.",
    "The room was clean, but the staff were rude.",
    "What a wonderful film, I would watch it again!",
    "Please cancel my subscription and refund the last payment.",
    "How do I change the email address of my account?",
    "Book a table for four people at seven this evening.",
    "The new phone's battery dies after two hours. Terrible.",
    "Scientists have found water beneath the surface of the moon.",
    "Turn off the lights in the kitchen.",
    "Is it going to rain in Berlin tomorrow?",
    "My transfer of 250 EUR failed twice, what is wrong?",
    "Thanks a lot, that solved my problem 😊",
    "Play some quiet piano music.",
    "The match ended two to one after extra time.",
    "Can I speak to a human, please?",
)
CHINESE = (
    "我的银行卡昨天丢了，需要补办一张。",
    "我的快递到哪里了？应该周一就到的。",
    "房间很干净，但是服务员态度很差。",
    "这部电影太好看了，我还想再看一遍！",
    "请取消我的会员，并退还上个月的费用。",
    "怎么修改账户绑定的手机号？",
    "帮我订今晚七点四个人的位子。",
    "新手机的电池两个小时就没电了，太失望了。",
    "科学家在月球表面之下发现了水。",
    "把厨房的灯关掉。",
    "明天北京会下雨吗？",
    "我转账 250 元失败了两次，是怎么回事？",
    "谢谢，问题已经解决了 😊",
    "放一首安静的钢琴曲。",
    "加时赛后比分是二比一。",
    "ＡＰＰ 登录不了，一直显示 error 403。",
)


def task_samples(book: TaskBook, own: Mapping[str, Sequence[Sample]]) -> dict[str, list[Sample]]:
    """Texts for each task that can be asked: the run's own, else the list in its languages."""
    found = {}
    for name, spec in book.tasks.items():
        is_question = spec.kind is TaskKind.QA
        if not (spec.labels or is_question):
            continue
        languages = set(spec.instructions) | {spec.lang}
        texts = {
            "en": ENGLISH if "en" in languages or "zh" not in languages else (),
            "zh": CHINESE if "zh" in languages else (),
        }
        shipped = [
            Sample(Request(text), QUESTIONS[lang] if is_question else "")
            for lang, of_lang in texts.items()
            for text in of_lang
        ]
        chosen = own.get(name) or own.get("") or shipped
        if is_question:
            asked = QUESTIONS.get(spec.lang, QUESTIONS["en"])
            chosen = [Sample(one.request, one.question or asked) for one in chosen]
        found[name] = list(dict.fromkeys(chosen))
    return found


def read_samples(run: Path) -> dict[str, list[Sample]]:
    """RUN/samples.jsonl by task; empty where there is no file.

    A line is `{"text": ..., "task": ...}`, may have `text2`, `head` and `tail`, as a request, and
    has a `question` where the task asks one.


    Raises:
        RowInvalid: a line is none of these.
    """
    path = run / SAMPLES_FILE
    found: dict[str, list[Sample]] = {}
    if not path.is_file():
        return found
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, task, text2 = row["text"], row.get("task", ""), row.get("text2", "")
            question, marks = row.get("question", ""), (row.get("head"), row.get("tail"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RowInvalid(
                f"{path}:{number}: not a sample", hint='write {"text": ..., "task": ...} lines'
            ) from error
        if not all(isinstance(words, str) for words in (text, task, text2, question)):
            raise RowInvalid(f"{path}:{number}: text, text2, task and question must be strings")
        if not text.strip():
            continue
        try:
            request = Request.of(text, text2=text2, head=marks[0], tail=marks[1])
        except RequestError as error:
            raise RowInvalid(f"{path}:{number}: {error.message}", hint=error.hint) from error
        found.setdefault(task, []).append(Sample(request, question))
    return found
