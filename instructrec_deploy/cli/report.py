"""How the command line says what went wrong: on standard error, with a hint, without user texts."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instructrec_deploy.core.errors import (
    FileUnusable,
    InstructRecError,
    InternalError,
    MissingExtra,
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
WHERE_TO_REPORT = "the project's issue tracker (see CONTRIBUTING.md)"


def report_error(error: InstructRecError) -> None:
    """`error IR-nnnn: message` and `hint: what to do`."""
    print(f"error {error.code}: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def error_facts(error: InstructRecError) -> dict[str, str]:
    """The same for JSON output."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def report_unexpected(error: BaseException) -> None:
    """An id, the file that holds the traceback, and where to report it.

    The traceback may hold texts, so it goes into a file that only this user can read.
    """
    number = secrets.token_hex(4)
    trace = "".join(traceback.format_exception(error))
    print(
        f"error {InternalError.code}: something unexpected happened, id {number} "
        f"({type(error).__name__})",
        file=sys.stderr,
    )
    saved = _save(trace, number)
    if saved:
        print(f"details: {saved} (look through it for private texts first)", file=sys.stderr)
    print(f"hint: please report it with the id to {WHERE_TO_REPORT}", file=sys.stderr)
    if os.environ.get("INSTRUCTREC_DEBUG"):
        print(trace, file=sys.stderr)


def explain_os(fault: Exception) -> FileUnusable | None:
    """What the system said about a file of the user's; None where it is about something else."""
    error = fault if isinstance(fault, OSError) else _no_room(fault)
    if error is None or not (error.filename or error.errno in NO_ROOM):
        return None
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    reason = (error.strerror or type(error).__name__).lower()
    if error.errno in NO_ROOM:
        hint = "make room, or name another place"
    elif error.errno in NOT_ALLOWED:
        hint = "check who may read and write there, or name another place"
    else:
        hint = "check the path"
    return FileUnusable(f"{where}{reason}", hint=hint)


@contextmanager
def need_extra(verb: str, extra: str) -> Iterator[None]:
    """Around a verb's imports: a package that is not there is told with what installs it.

    Raises:
        MissingExtra: an import failed that is not one of our own files.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("instructrec"):
            raise
        raise MissingExtra(
            f"`instructrec {verb}` needs the package {error.name}, which is not installed",
            hint=f"pip install 'instructrec-deploy[{extra}]'",
        ) from error


def check_writable(path: Path | None) -> None:
    """Try a file before minutes of work are to be kept in it; what is there stays as it is.

    Raises:
        OSError: it cannot be written.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a").close()
        if is_new:
            path.unlink()


def say(text: str) -> None:
    """Progress words: standard error, so that standard output stays machine-readable."""
    print(text, file=sys.stderr, flush=True)


def _no_room(fault: BaseException | None) -> OSError | None:
    """The full disk behind an error of a library, by its chain or by its words (Rust's)."""
    while fault is not None:
        said = re.search(r"\(os error (\d+)\)", str(fault))
        number = int(said[1]) if said else getattr(fault, "errno", None)
        if number in NO_ROOM:
            return OSError(number, os.strerror(number))
        fault = fault.__cause__ or fault.__context__
    return None


def _save(trace: str, number: str) -> Path | None:
    path = Path(tempfile.gettempdir()) / f"instructrec-{number}.log"
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(trace, encoding="utf-8")
    except OSError:  # a read-only machine
        return None
    return path
