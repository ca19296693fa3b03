"""Cut a server's connections, so that no caller is left to gRPC's own way of stopping.

`grpc.aio.Server.stop` ends a call that reaches it while it stops as CANCELLED, which says that the
caller wanted so itself, and which few retry. A connection that ends makes UNAVAILABLE of such a
call. gRPC shows nobody its sockets, so they are found among the files of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

OPEN_FILES = (Path("/proc/self/fd"), Path("/dev/fd"))  # Linux; macOS and BSD

SO_ATTACH_FILTER = 26  # Linux, asm-generic/socket.h; Python names it not
# A classic BPF program, which sees a packet from its TCP header on; SYN is the second bit of the
# flags in byte 13. Each instruction: code, where to go on if true, if not, operand.
SYN_DROPPED = [
    struct.pack("HBBI", 0x30, 0, 0, 13),  # ldb [13]
    struct.pack("HBBI", 0x45, 0, 1, 0x02),  # jset #2: next, else the one after
    struct.pack("HBBI", 0x06, 0, 0, 0),  # ret #0: drop
    struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF),  # ret all of it
]


def cut_connections(port: int) -> int:
    """Stop listening on a TCP port and end its connections; what was sent before still arrives.

    Returns:
        How many sockets were cut; 0 where the system does not show a process its files.
    """
    listeners, connections = _sockets(port)
    for number in listeners:  # first, or callers would be back before the last of them is cut
        with contextlib.suppress(OSError):
            _replace(number)
    for number in connections:
        with contextlib.suppress(OSError), _copy(number) as one:
            one.shutdown(socket.SHUT_RDWR)
    return len(listeners) + len(connections)


def hold_off(port: int) -> int:
    """Leave those unanswered who begin to connect to a TCP port; Linux alone.

    Whoever a listener has answered and not taken in yet is cut when it closes. Held off for a
    moment first, it takes in all of them; a caller that got no answer asks again after a second, by
    itself, and comes to another listener of the port.

    Returns:
        How many listeners hold off.
    """
    if not sys.platform.startswith("linux"):
        return 0
    program = ctypes.create_string_buffer(b"".join(SYN_DROPPED))
    told = struct.pack("HP", len(SYN_DROPPED), ctypes.addressof(program))
    n_held = 0
    for number in _sockets(port)[0]:
        with contextlib.suppress(OSError), _copy(number) as one:
            one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, told)
            n_held += 1
    return n_held


def stop_listening(port: int) -> int:
    """Take no more connections on a TCP port; those that are there go on.

    Returns:
        How many sockets listened; 0 where the system does not show a process its files.
    """
    listeners, _ = _sockets(port)
    for number in listeners:
        with contextlib.suppress(OSError):
            _replace(number)
    return len(listeners)


def count_connections(port: int) -> int:
    """How many connections callers have to a TCP port of this process."""
    return len(_sockets(port)[1])


def _sockets(port: int) -> tuple[list[int], list[int]]:
    """The open files that listen on a TCP port, and those that are connections to it."""
    listeners: list[int] = []
    connections: list[int] = []
    for number in _open_files():
        with contextlib.suppress(OSError), _copy(number) as one:  # no socket, or gone already
            is_tcp = one.family in (socket.AF_INET, socket.AF_INET6)
            if is_tcp and one.getsockname()[1] == port:
                is_listening = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                (listeners if is_listening else connections).append(number)
    return listeners, connections


def _open_files() -> list[int]:
    folder = next((folder for folder in OPEN_FILES if folder.is_dir()), None)
    return [int(path.name) for path in folder.iterdir()] if folder else []


@contextlib.contextmanager
def _copy(number: int) -> Iterator[socket.socket]:
    """The socket behind a file number, as one that may be closed."""
    duplicate = os.dup(number)
    try:
        one = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise
    with one:
        yield one


def _replace(number: int) -> None:
    """Put a socket that nobody reaches in a listener's place.

    To shut a listener down instead makes gRPC log an error for it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as nobody:
        os.dup2(nobody.fileno(), number, inheritable=False)
