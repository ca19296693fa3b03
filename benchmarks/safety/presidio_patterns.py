"""Texts as a JSON list on standard input, Presidio's findings on standard output.

Runs where presidio-analyzer is installed; nothing of this project is needed there.
"""

from __future__ import annotations

import json
import sys

from presidio_analyzer import predefined_recognizers as known

TYPES = {
    "PHONE_NUMBER": "PHONE",
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "US_SSN": "US_SSN",
    "UK_NHS": "UK_NHS",
    "UK_NINO": "UK_NINO",
    "ES_NIF": "ES_DNI",
    "IT_FISCAL_CODE": "IT_FISCAL",
    "PL_PESEL": "PL_PESEL",
    "US_PASSPORT": "PASSPORT",
}
NAMES = (
    "PhoneRecognizer EmailRecognizer CreditCardRecognizer IbanRecognizer IpRecognizer"
    " UsSsnRecognizer NhsRecognizer UkNinoRecognizer EsNifRecognizer ItFiscalCodeRecognizer"
    " PlPeselRecognizer"
)
MIN_SCORE = 0.4


def main() -> None:
    """Search each text with every recognizer; the best of those that overlap stays."""
    recognizers = [getattr(known, name)() for name in NAMES.split() if hasattr(known, name)]
    answers = []
    for text in json.load(sys.stdin):
        found = []
        for recognizer in recognizers:
            found += recognizer.analyze(text, recognizer.supported_entities, None) or []
        kept: list[tuple[str, int, int]] = []
        for hit in sorted(found, key=lambda hit: (-hit.score, hit.start - hit.end)):
            name = TYPES.get(hit.entity_type)
            is_apart = all(hit.end <= start or end <= hit.start for _, start, end in kept)
            if name and is_apart and hit.score >= MIN_SCORE:
                kept.append((name, hit.start, hit.end))
        answers.append(kept)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
