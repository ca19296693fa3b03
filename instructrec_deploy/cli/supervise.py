"""The program of a supervisor of workers: `python -m instructrec_deploy.cli.supervise FILE`.

`instructrec serve --workers` starts it in its own place, and hands on the number of the open file
that says what to do.
"""

from __future__ import annotations

import sys

from instructrec_deploy.cli.report import report_error, report_unexpected
from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.server.workers.plan import Plan
from instructrec_deploy.server.workers.supervisor import supervise


def main() -> None:
    """Supervise; always ends in SystemExit."""
    try:
        supervise(Plan.take_over(int(sys.argv[1])))
    except InstructRecError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  the border: nobody else would report it
        report_unexpected(error)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
