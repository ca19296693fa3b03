"""`python -m instructrec_deploy.cli`: the command line without its script."""

from __future__ import annotations

from instructrec_deploy.cli.main import main

main()
