"""What gRPC for Python reaches with nothing behind it: grpc.aio, an answer that is always the same.

python empty.py MODEL_FOLDER PORT LAYOUT     (the folder and the layout are not looked at)
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import grpc

SERVICE, METHOD = "peer.Classifier", "Predict"
ANSWER = bytes(200)  # about what an answer with five scores takes


async def answer(data: bytes, context: Any) -> bytes:
    """The same for everybody."""
    return ANSWER


async def serve(port: str) -> None:
    """Answer until the process is ended."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def loop_factory() -> Any:
    """uvloop's where it is installed, as ours has it."""
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop

        return new_event_loop
    return None


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(sys.argv[2]))
