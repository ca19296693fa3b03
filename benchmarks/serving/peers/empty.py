"""What gRPC reaches with nothing behind it: an answer that is always the same.

python empty.py MODEL_FOLDER PORT LAYOUT     (layout: {} is grpc.aio, {"transport": "asyncio"} ours)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import grpc

from instructrec_deploy.server.http2.server import Http2Server

SERVICE, METHOD = "peer.Classifier", "Predict"
ANSWER = bytes(200)  # about what an answer with five scores takes


async def answer(data: bytes, context: Any) -> bytes:
    """The same for everybody."""
    return ANSWER


async def serve(port: str, layout: dict[str, str]) -> None:
    """Answer until the process is ended."""
    is_own = layout.get("transport") == "asyncio"
    server: Any = Http2Server(max_bytes=4 << 20) if is_own else grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    if is_own:
        server.listen_on("127.0.0.1", int(port))
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


def loop_factory() -> Any:
    """uvloop's where it is installed, as ours has it."""
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop

        return new_event_loop
    return None


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(sys.argv[2], json.loads(sys.argv[3])))
