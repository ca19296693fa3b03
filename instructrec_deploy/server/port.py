"""Whether an address can be listened on: asked before gRPC, which would log lines of its own."""

from __future__ import annotations

import errno
import socket

from instructrec_deploy.core.errors import PortInUse

HINTS = {
    errno.EADDRINUSE: "another program listens there: choose another --port, or --port 0 for a "
    "free one",
    errno.EACCES: "this user may not listen on that port: choose one above 1023",
    errno.EADDRNOTAVAIL: "the address is not this machine's: choose another --host",
}


def check_port(host: str, port: int) -> None:
    """Listen on each address of the host for a moment.

    Nothing is reserved: gRPC binds by itself afterwards, without sharing the port, and fails if
    somebody was faster.

    Args:
        host: a name or an address, an IPv6 one without brackets.
        port: 0 is always free.

    Raises:
        PortInUse: one of the addresses is taken, or none is this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise PortInUse(f"cannot listen on {host}: no such host", hint="check --host") from error
    tried = [_try(family, address) for family, *_, address in found]
    failures = [failure for failure in tried if failure is not None]
    taken = [failure for failure in failures if failure.errno == errno.EADDRINUSE]
    if taken or len(failures) == len(found):
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise port_error(address, (taken or failures)[0])


def port_error(address: str, error: OSError | RuntimeError) -> PortInUse:
    """Why `address` cannot be listened on, as far as it is known."""
    number = error.errno if isinstance(error, OSError) else None
    return PortInUse(
        f"cannot listen on {address}", hint=HINTS.get(number or errno.EADDRINUSE, str(error))
    )


def _try(family: int, address: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As gRPC does: a connection of a server that ended may linger on the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None
