"""Guard a text while it is written: what is decided goes on, what no rule can settle yet waits.

What goes on, and the verdict at the end, are those of the whole text, however it is cut into
pieces. A character of a masked value never goes out: each rule's pattern tells where a match of it
may have begun (pending.py), and only what stands before all of them goes on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.result import Finding, Verdict
from instructrec_deploy.safety import reach
from instructrec_deploy.safety.guard import BROKEN, Direction, Guard
from instructrec_deploy.safety.masking import changes, mask_text
from instructrec_deploy.safety.operators import Numbers
from instructrec_deploy.safety.overlaps import resolve_overlaps
from instructrec_deploy.text.look_alikes import word_start
from instructrec_deploy.text.normalize import Folded, fold, lower_in_place

_SLICE_CHARS = 2048  # of one piece at a time: bounds what is looked at
_RETRY = 8  # look again when an eighth of what is held has come: the work stays linear


class StreamGuard:
    """Checks one text that comes in pieces. Not for several threads at once.

    Where the policy blocks, what stood before the finding has gone out already and nothing follows
    it; the whole text's guard would have returned "". The verdict is the same.

    Raises:
        ConfigError: the policy asks recognizers that need the whole text.
    """

    def __init__(self, guard: Guard, *, direction: Direction = "output") -> None:
        self._checker = guard.checker(direction)
        if not self._checker.is_streamable:
            raise ConfigError(
                f"a text that comes in pieces cannot be shown to Presidio ([{direction}.presidio])",
                hint="check whole texts, or stream by a policy without it",
            )
        self._numbers = Numbers()
        self._text = ""  # kept: context that has gone, and what is held
        self._base = 0  # where it stands in the whole text
        self._gone = 0  # how much of it has gone
        self._done = 0  # how much of it is decided, flags too
        self._seen = 0  # its length when it was last looked at
        self._borders: list[int] = []  # in it: where no match crosses
        self._findings: list[Finding] = []
        self.is_blocked = False  # nothing goes out any more: whoever writes may stop
        self._is_broken = False

    @property
    def n_held(self) -> int:
        """How many characters came in that wait."""
        return len(self._text) - self._gone

    def feed(self, chunk: str) -> str:
        """Take the next piece; give what may go on now, masked."""
        released = []
        for start in range(0, len(chunk), _SLICE_CHARS):
            self._text += chunk[start : start + _SLICE_CHARS]
            if len(self._text) - self._seen >= max(1, self.n_held // _RETRY):
                released.append(self._advance())
        return "".join(released)

    def finish(self) -> tuple[str, Verdict]:
        """The text has ended: what is left of it, masked, and the verdict on all of it."""
        rest = self._advance(is_end=True)
        return rest, self.verdict

    @property
    def verdict(self) -> Verdict:
        """The verdict on what is decided so far."""
        return self._checker.verdict(tuple(self._findings))

    def _advance(self, *, is_end: bool = False) -> str:
        """Let go what is decided."""
        self._seen = len(self._text)
        if self._is_broken:
            return self._let_rest_go()
        try:
            seen = self._checker.find_all(self._text)
            gone, done = (self._seen, self._seen) if is_end else self._borders_now(seen)
            seen = [f for f in seen if self._done <= f.start < gone]
            # What is not decided yet must not hide what is: so overlaps are resolved behind it.
            found = resolve_overlaps(seen)
            found = self._checker.apply(self._text, found, self._numbers)
        except BROKEN as fault:
            return self._break(fault)
        if self._seen - done > reach.HOLD:
            return self._break(None)
        released = self._release(gone, found)
        self._findings += [
            f._replace(start=f.start + self._base, end=f.end + self._base)
            for f in found
            if f.start < done
        ]
        self._done = done
        self._forget()
        return released

    def _borders_now(self, found: Sequence[Finding]) -> tuple[int, int]:
        """Up to where the kept text can go, and up to where all about it is decided.

        A finding that is only flagged changes nothing in what goes. The last visible character
        stays: a mark may follow that belongs to it. `found` has those, too, that others overlap.
        """
        folded = fold(self._text)
        text, lower = folded.text, lower_in_place(folded.text)
        start = _folded_at(folded, self._done)
        if start >= len(text):
            return self._gone, self._done
        end = _settled_fold(folded, start)
        strong, every = self._checker.open(text[:end], lower[:end], start)
        edits = [
            (_source_at(folded, edit.start), _source_at(folded, edit.end))
            for edit in self._checker.edits(text, lower)
        ]
        borders = []
        for first, kept in ((strong, [f for f in found if changes(f)]), (every, found)):
            first = max(start, _word_border(folded, min(first, end, len(text) - 1)))
            spans = [*edits, *((f.start, f.end) for f in kept)]
            borders.append(_step_back(_source_at(folded, first), spans))
        done = max(self._done, borders[1])
        return max(self._gone, done, borders[0]), done

    def _release(self, border: int, found: tuple[Finding, ...]) -> str:
        """Give what stands before the border and has not gone yet, masked."""
        released = ""
        if not self.is_blocked:
            here = [f for f in found if f.start >= self._gone]
            blocked = next((f.start for f in here if f.action == "block"), None)
            stop = border if blocked is None else blocked
            moved = [
                f._replace(start=f.start - self._gone, end=f.end - self._gone)
                for f in here
                if f.start < stop
            ]
            released = mask_text(self._text[self._gone : stop], moved)
            self.is_blocked = blocked is not None
        self._gone = border
        return released

    def _break(self, fault: Exception | None) -> str:
        """A check broke, or a stretch stays undecided for too long: as the policy says."""
        finding = self._checker.failure(fault)
        self._findings.append(finding)
        self._is_broken = True
        self.is_blocked = self.is_blocked or finding.action == "block"
        return self._let_rest_go()

    def _let_rest_go(self) -> str:
        """Nothing is checked any more: all goes, or nothing."""
        released = self._release(len(self._text), ())
        self._done = self._gone
        self._forget()
        return released

    def _forget(self) -> None:
        """Drop what stands further back than any rule reads, up to where no match crosses."""
        if not self._borders or self._borders[-1] < self._done:
            self._borders.append(self._done)
        if self._is_broken:
            cut = self._done
        else:
            at = bisect_left(self._borders, self._done - reach.CONTEXT)
            cut = self._borders[at - 1] if at else 0
        if cut <= 0:
            return
        self._text = self._text[cut:]
        self._base += cut
        self._done -= cut
        self._gone -= cut
        self._seen -= cut
        self._borders = [border - cut for border in self._borders if border > cut]


def _folded_at(folded: Folded, at: int) -> int:
    """The first folded character that comes from `at` of the source or from behind it."""
    return bisect_left(folded.origins, at) if folded.origins else at


def _source_at(folded: Folded, at: int) -> int:
    """Where a folded character comes from; the source's length behind the last."""
    if at >= len(folded.text):
        return len(folded.source)
    return folded.origins[at] if folded.origins else at


def _settled_fold(folded: Folded, start: int) -> int:
    """Up to where the folded text stays as it is: a word with look-alikes is read as a whole."""
    end = len(folded.text)
    for at in range(max(start, word_start(folded.text, end)), end):
        if not folded.source[_source_at(folded, at)].isascii():
            return at
    return end


def _word_border(folded: Folded, at: int) -> int:
    """`at`, or the beginning of its word where that is not plain ASCII."""
    begin = word_start(folded.text, at)
    stretch = folded.source[_source_at(folded, begin) : _source_at(folded, at)]
    return at if stretch.isascii() else begin


def _step_back(at: int, crossing: Sequence[tuple[int, int]]) -> int:
    """The last place up to `at` that lies in none of the spans."""
    for start, end in sorted(crossing, reverse=True):
        if start < at < end:
            at = start
    return at
