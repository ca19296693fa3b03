"""`[safety]`: which policy is in force, and what is written down about its decisions."""

from __future__ import annotations

from pydantic import Field

from instructrec_deploy.core.settings import Section


class SafetySettings(Section):
    """Paths of files; "" leaves the part off."""

    policy: str = ""  # a safety.toml in place of the bundle's; read again when it changes
    bundle: str = ""  # a bundle folder whose model the policy's heads ask, not the served one's
    reload_s: float = Field(default=2.0, gt=0.0)  # how often it is looked at for a change
    audit: str = ""  # JSON lines: every decision that found something, without its text
    review: str = ""  # the queue of cases that a person is to look at
