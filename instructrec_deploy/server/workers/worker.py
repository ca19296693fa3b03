"""The program of a worker process: `python -m instructrec_deploy.server.workers.worker SOCKET`.

SOCKET is the number of an open socket to the supervisor, whose first frame says what to serve. Why
it cannot serve, it says there, too: the supervisor decides what that means for the others.
"""

from __future__ import annotations

import gc
import logging
import socket
import sys
from pathlib import Path

from instructrec_deploy.core.errors import InstructRecError, InternalError
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.settings import ServerSettings
from instructrec_deploy.server.workers.link import Message, pack, read_frame

log = logging.getLogger(f"{LOGGER}.workers")


def work(sock: socket.socket) -> int:
    """Serve as the supervisor says; the exit code."""
    gc.disable()  # `calm_collector` turns it on again when all is loaded
    try:
        _serve(sock, read_frame(sock))
    except EOFError:
        return 0  # the supervisor is gone
    except InstructRecError as error:
        return _report(sock, error)
    except Exception as error:  # the border: nobody else would report it
        log.error("unexpected error", exc_info=error)
        return _report(sock, InternalError("a worker ended unexpectedly", hint="see the log"))
    return 0


def _serve(sock: socket.socket, plan: Message) -> None:
    from instructrec_deploy.runtime.opening import begin_opening

    settings = ServerSettings.model_validate(plan["settings"])
    opening = plan["bundle"] and begin_opening(
        Path(plan["bundle"]),
        engine=settings.engine,
        prepared=settings.prepared,
        policy=settings.safety.policy,
        safety_bundle=settings.safety.bundle,
    )
    from instructrec_deploy.server.app import run_server  # meanwhile
    from instructrec_deploy.server.ready import Ready
    from instructrec_deploy.server.workers.member import Member

    age_s = settings.server.max_connection_age_s(is_shared=True)
    members: list[Member] = []

    async def join() -> Member:
        members.append(await Member.join(sock.dup(), connection_age_s=age_s))
        return members[0]

    def announce(ready: Ready) -> None:
        members[0].announce(ready)

    run_server(opening or None, settings, on_ready=announce, team=join)


def _report(sock: socket.socket, error: InstructRecError) -> int:
    facts = {"code": error.code, "message": error.message, "hint": error.hint}
    try:
        sock.setblocking(True)
        sock.sendall(pack("failed", exit_code=error.exit_code, **facts))
    except OSError:  # the supervisor is gone
        pass
    return error.exit_code


if __name__ == "__main__":
    sys.exit(work(socket.socket(fileno=int(sys.argv[1]))))
