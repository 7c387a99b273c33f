"""The model card: an ordinary README.md that says what was selected, by which reference, in which scope."""

from typing import Any


def model_card(facts: dict[str, Any]) -> str:
    """Markdown with a YAML header for the Hub.

    Args:
        facts: `arm`, `base`, `reference`, `score`, `ratio`, `scope`, `options` (further settings of the
            selection, may be empty), `ratio_kept`, `tokens_seen`, `tokens_selected`, `context`, `document_mask`,
            `seed`, `seconds`, `targets` (name -> loss and bits_per_byte), `version`.
    """
    rows = "\n".join(
        f"| {name} | {loss['loss']:.4f} | {loss['bits_per_byte']:.4f} |" for name, loss in facts["targets"].items()
    )
    measured = (
        f"\n## Held-out text\n\n| set | nats a token | bits a byte |\n| --- | --- | --- |\n{rows}\n" if rows else ""
    )
    selection = _SELECTION[facts["arm"]].format(**facts)
    options = f"| further settings | {facts['options']} |\n" if facts["options"] else ""
    mask = "stays inside a document" if facts["document_mask"] else "crosses documents (plain packing)"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- tokensieve
- selective-language-modeling
---

# {_TITLES[facts["arm"]]}

{selection}

| | |
| --- | --- |
| started from | {facts["base"]} |
| reference model | {facts["reference"]} |
| score, ratio, scope | {facts["score"]}, {facts["ratio"]}, {facts["scope"]} |
{options}| share of candidates back-propagated | {facts["ratio_kept"]:.4f} |
| tokens seen | {facts["tokens_seen"]:,} |
| tokens back-propagated | {facts["tokens_selected"]:,} |
| context | {facts["context"]} tokens; attention {mask} |
| seed | {facts["seed"]} |
| training time | {facts["seconds"]:.0f} s |
{measured}
Made with tokensieve {facts["version"]} (Selective Language Modeling, Rho-1, arXiv 2404.07965).
`run.json` and `metrics.jsonl` beside this file hold the settings and every logged number.
"""


_TITLES = {
    "slm": "A selectively trained language model",
    "random": "A control: trained on randomly selected tokens",
    "clm": "A language model trained on every token",
    "reference": "A reference model",
}
_SELECTION = {
    "slm": "Trained with Selective Language Modeling: the model read every token, and the tokens ranked highest "
    "by `{score}` were back-propagated.",
    "random": "The control of a Selective Language Modeling run: the model read every token, and a random share was "
    "back-propagated.",
    "clm": "Plain causal language modeling, the baseline of a Selective Language Modeling run.",
    "reference": "Plain causal language modeling on clean text; its token losses decide what another model learns.",
}
