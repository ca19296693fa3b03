"""Log lines are JSON and hold no message of an exception, which may quote a text."""

from __future__ import annotations

import json
import logging
import sys

from instructrec_deploy.server.logs import JsonFormatter, TextFormatter

CANARY = "我的暗号 canary-7f3a"


def record(*, with_error: bool = False) -> logging.LogRecord:
    trouble = None
    if with_error:
        try:
            try:
                raise ValueError(CANARY)
            except ValueError as error:
                raise KeyError(CANARY) from error
        except KeyError:
            trouble = sys.exc_info()
    return logging.getLogger("instructrec_deploy.test").makeRecord(
        "instructrec_deploy.test",
        logging.ERROR,
        __file__,
        1,
        "something",
        (),
        trouble,
        extra={"incident": "abc"},
    )


def test_line_is_json_with_the_extra_fields() -> None:
    row = json.loads(JsonFormatter().format(record()))
    assert (row["level"], row["event"], row["incident"]) == ("error", "something", "abc")


def test_error_is_told_by_types_and_places_without_its_words() -> None:
    line = JsonFormatter().format(record(with_error=True))
    places = json.loads(line)["error"]
    assert [place.split()[0] for place in places] == ["KeyError", "ValueError"]
    assert "test_logs.py" in places[0]
    assert CANARY not in line
    assert "canary" not in TextFormatter().format(record(with_error=True))
