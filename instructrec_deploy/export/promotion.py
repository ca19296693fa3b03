"""A run that was retuned from feedback is exported only where its promotion was decided so."""

from __future__ import annotations

import json
from pathlib import Path

from instructrec_deploy.core.errors import PromotionRefused

PROMOTION_FILE = "promotion.json"


def check_promoted(run: Path) -> None:
    """Refuse a run whose promotion.json does not say that it was promoted; one without has none.

    Raises:
        PromotionRefused: it was refused, was never decided, or the file is damaged.
    """
    path = run / PROMOTION_FILE
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    known = content if isinstance(content, dict) else {}
    if known.get("promoted") is not True:
        reason = known.get("reason") or "its promotion.json is damaged"
        raise PromotionRefused(
            f"{run} was not promoted: {reason}",
            hint="see its promotion.json; --force exports it all the same",
        )
