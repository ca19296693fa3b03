"""CARD.md of a bundle that writes text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructrec_deploy.core.manifest import Manifest
from instructrec_deploy.evaluation.card import origin, summary


def write_writer_card(manifest: Manifest, evaluation: Mapping[str, Any]) -> str:
    """The card's text.

    Args:
        manifest: of a bundle of kind seq2seq or causal; its `files` hold graphs and tokenizer.
        evaluation: content of evaluation.json, the export's figures under `export`.
    """
    export = evaluation.get("export", {})
    parts = [
        f"# {manifest.name} {manifest.version}",
        summary(manifest),
        "## Quality\n\nNot measured: nothing says what it should have written. Try it on texts of "
        "your own.",
        *_parity(export, manifest),
        *_usage(),
        *_limits(export),
        *origin(manifest, evaluation),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _parity(export: Mapping[str, Any], manifest: Manifest) -> tuple[str, ...]:
    parity = export.get("writer_parity")
    if not isinstance(parity, Mapping):
        return ()
    return (
        "## Against its checkpoint",
        f"Behind {parity['n_texts']} texts, over {parity['n_steps']} steps each, given the "
        f"checkpoint's tokens: the likeliest next token is the checkpoint's in "
        f"{parity['agreement']:.1%} of the steps (ties within 1e-4 of the largest logit "
        "count as equal). A step's most different logit moved by "
        f"{parity['mean_difference']:.2g} of the largest logit on average and by "
        f"{parity['max_difference']:.2g} at most; asked alone and in a batch of mixed lengths, by "
        f"at most {parity['batch_difference']:.2g}. "
        "`instructrec bundle verify` runs golden.jsonl again: log probabilities must be within "
        f"{manifest.score_tolerance:g}.",
    )


def _usage() -> tuple[str, ...]:
    lines = (
        "from instructrec_deploy.runtime.writer import Writer, WriterSettings",
        "",
        'with Writer("this/folder") as writer:',
        '    written = writer.write(["some text"], WriterSettings(max_new_tokens=64, n_beams=4))',
        "    print(written[0].text)",
    )
    return ("## Use", "```python\n" + "\n".join(lines) + "\n```")


def _limits(export: Mapping[str, Any]) -> tuple[str, ...]:
    lines = [
        "It is not served: `instructrec serve` refuses it.",
        "No safety policy looks at what it writes; safety.toml lies in the bundle for a server "
        "that will.",
        "It writes greedily or by beam search. Sampling is not implemented, and chat templates "
        "are not applied.",
    ]
    if unfollowed := export.get("unfollowed"):
        lines.append(
            "Settings of the checkpoint's own generation configuration that are not followed: "
            f"{', '.join(unfollowed)}."
        )
    return ("## Limits", "\n".join(f"- {line}" for line in lines))
