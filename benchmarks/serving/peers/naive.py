"""What one writes in an afternoon: grpc.aio, a thread a core, one text at a time, no batches.

python naive.py MODEL_FOLDER PORT LAYOUT     (layout: {"n_threads": 2}, threads that predict)
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from model import Model

SERVICE, METHOD = "peer.Classifier", "Predict"


async def serve(folder: str, port: str, layout: dict[str, int]) -> None:
    """Answer until the process is ended."""
    model = Model(folder)
    pool = ThreadPoolExecutor(layout["n_threads"])
    loop = asyncio.get_running_loop()

    async def predict(data: bytes, context: Any) -> bytes:
        labels = await loop.run_in_executor(pool, model.predict, [data.decode()])
        return labels[0].encode()

    method = grpc.unary_unary_rpc_method_handler(predict)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
