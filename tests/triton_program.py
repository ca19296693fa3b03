"""What a user of tritonclient writes; run by `tests/e2e/test_tritonclient.py` in its own Python.

argv: address. Prints one JSON object of what the client said.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found]
import tritonclient.grpc.aio as triton_aio  # type: ignore[import-not-found]

MODEL = "tiny"
TEXTS = ["I lost my card", "请问我的余额 😀"]


def tensor(name: str, rows: list[Any]) -> Any:
    array = np.array(rows, dtype=object)
    found = triton.InferInput(name, list(array.shape), "BYTES")
    found.set_data_from_numpy(array)
    return found


def plain(result: Any, name: str) -> Any:
    values = result.as_numpy(name)
    words = [v.decode() if isinstance(v, bytes) else float(v) for v in values.ravel()]
    return {"shape": list(values.shape), "values": words}


def refusal(client: Any, inputs: list[Any]) -> list[str]:
    try:
        client.infer(MODEL, inputs)
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    return []


def configured(client: Any) -> list[Any]:
    """What perf_analyzer reads before it sends."""
    config = client.get_model_config(MODEL).config
    needed = [one.name for one in config.input if not one.optional]
    kinds = {one.name: one.data_type for one in (*config.input, *config.output)}
    return [config.name, config.max_batch_size, needed, kinds["text"], kinds["score"]]


def blocking(address: str) -> dict[str, Any]:
    with triton.InferenceServerClient(address) as client:
        row = client.infer(MODEL, [tensor("text", TEXTS)], request_id="mine")
        column = client.infer(
            MODEL,
            [tensor("text", [[text] for text in TEXTS])],
            outputs=[triton.InferRequestedOutput("score"), triton.InferRequestedOutput("label")],
            compression_algorithm="gzip",
        )
        own = client.infer(
            MODEL,
            [
                tensor("text", ["refund please"]),
                tensor("instruction", ["What does the customer want?"]),
                tensor("candidates", ["refund", "card lost"]),
            ],
            parameters={"top_k": 1, "decision": "one"},
            priority=1,
            timeout=1_000_000,
        )
        task = client.infer(MODEL, [tensor("text", TEXTS)], parameters={"task": "sentiment"})
        done: queue.Queue[Any] = queue.Queue()
        client.async_infer(
            MODEL, [tensor("text", TEXTS)], callback=lambda result, error: done.put((result, error))
        )
        later, error = done.get(timeout=20)
        index = client.get_model_repository_index()
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(MODEL),
            "other_ready": client.is_model_ready("other"),
            "server": client.get_server_metadata(as_json=True)["name"],
            "outputs": [o.name for o in client.get_model_metadata(MODEL).outputs],
            "config": configured(client),
            "index": [[m.name, m.state] for m in index.models],
            "id": row.get_response().id,
            "row": {name: plain(row, name) for name in ("label", "score")},
            "answers": [json.loads(a) for a in row.as_numpy("answer")],
            "column": {name: plain(column, name) for name in ("label", "score")},
            "column_has_answer": column.as_numpy("answer") is not None,
            "own": json.loads(own.as_numpy("answer")[0]),
            "task": [json.loads(a)["answers"][0]["task"] for a in task.as_numpy("answer")],
            "async": plain(later, "label") if error is None else str(error),
            "refused": refusal(client, [tensor("text", ["a", " "])]),
        }


async def looping(address: str) -> Any:
    async with triton_aio.InferenceServerClient(address) as client:
        return plain(await client.infer(MODEL, [tensor("text", TEXTS)]), "label")


def main() -> None:
    address = sys.argv[1]
    found = blocking(address)
    found["aio"] = asyncio.run(looping(address))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
