"""Every score under every scope, with every refinement, against a naive weighted loss through full logits."""

import pytest
import torch
from tests.parity.conftest import assert_same, batch, best, full_logits, gradients, losses_of, tiny
from torch import Tensor

from tokensieve import SelectionPolicy
from tokensieve.selection import Part, hash_uniform

RATIO = 0.4
SIMPLE = (
    "excess_loss",
    "reference_loss",
    "reference_entropy",
    "current_loss",
    "current_entropy",
    "history_loss",
    "random",
    "mask",
)


def naive_score(name: str, losses: Tensor, entropies: Tensor, columns: dict[str, Tensor], cap: float | None) -> Tensor:
    reference = columns["reference_loss"]
    return {
        "excess_loss": losses - (reference if cap is None else reference.minimum(torch.tensor(cap))),
        "reference_loss": -reference,
        "reference_entropy": -columns["reference_entropy"],
        "current_loss": losses,
        "current_entropy": entropies,
        "history_loss": columns["history_loss"] - losses,
        # That these numbers are random is for the unit tests of the scores; here both sides see the same.
        "random": hash_uniform(columns["token_index"], 0),
    }[name]


def naive_choice(policy: SelectionPolicy, score: Tensor, valid: Tensor, documents: Tensor, ratio: float) -> Tensor:
    if policy.threshold is not None:
        return valid & (score > policy.threshold)
    if policy.scope == "sequence":
        return torch.cat([best(score[b : b + 1], valid[b : b + 1], ratio) for b in range(len(score))])
    if policy.scope != "document":
        return best(score, valid, ratio)
    fragments = {(row, int(documents[row, t])) for row, t in valid.nonzero().tolist()}
    masks = [valid & (documents == d) & (torch.arange(len(valid)) == row)[:, None] for row, d in sorted(fragments)]
    chosen, room = torch.zeros_like(valid), int(ratio * int(valid.sum()) + 0.5)
    for mask in sorted(masks, key=lambda m: -score[m].mean().item()):
        room -= int(mask.sum())
        if room < 0:
            break
        chosen |= mask
    return chosen


def naive_soft(score: Tensor, valid: Tensor, ratio: float, temperature: float, by_row: bool) -> Tensor:
    """Tau by trying: halve an interval that surely holds it, 200 times."""
    weights = torch.zeros_like(score)
    for unit in [[row] for row in range(len(score))] if by_row else [list(range(len(score)))]:
        mask = torch.zeros_like(valid)
        mask[unit] = valid[unit]
        keep, low, high = int(ratio * int(mask.sum()) + 0.5), -1e4, 1e4
        for _ in range(200):
            middle = (low + high) / 2
            heavy = torch.sigmoid((score[mask] - middle) / temperature).sum() > keep
            low, high = (middle, high) if heavy else (low, middle)
        weights[mask] = torch.sigmoid((score[mask] - high) / temperature)
    return weights


def naive_weights(
    policy: SelectionPolicy, losses: Tensor, entropies: Tensor, columns: dict[str, Tensor], valid: Tensor
) -> tuple[Tensor, Tensor]:
    """(the hard choice, the weight of every token), each [B, S]."""
    parts = [(part.score, part.ratio) for part in policy.parts] or [(policy.score, policy.ratio)]
    choices = []
    for name, ratio in parts:
        if name == "mask":
            choices.append(valid & columns["selection_mask"])
            continue
        score = naive_score(name, losses, entropies, columns, policy.reference_loss_cap)
        choices.append(naive_choice(policy, score, valid, columns["document_ids"], ratio))
    chosen = choices[0]
    for other in choices[1:]:
        chosen = chosen | other if policy.score == "union" else chosen & other
    weights = chosen.double()
    if policy.temperature is not None:
        weights = naive_soft(score, valid, policy.ratio, policy.temperature, policy.scope == "sequence")
    return chosen, policy.alpha * weights + (1 - policy.alpha) * policy.ratio * valid.double()


PARTS = (Part("excess_loss", 0.5), Part("reference_entropy", 0.6))
UNITS = ("global", "microbatch", "sequence")
KINDS = ("intersection", "union")
POLICIES = (
    [SelectionPolicy(score, RATIO, scope) for score in SIMPLE for scope in UNITS]
    + [SelectionPolicy(score, RATIO, "document") for score in SIMPLE if score != "mask"]
    + [SelectionPolicy(kind, RATIO, scope, parts=PARTS) for kind in KINDS for scope in (*UNITS, "document")]
    + [
        SelectionPolicy(ratio=RATIO, alpha=0.3),
        SelectionPolicy("reference_loss", RATIO, "sequence", alpha=0.7),
        SelectionPolicy("mask", RATIO, alpha=0.5),
        SelectionPolicy("union", RATIO, parts=PARTS, alpha=0.5),
        SelectionPolicy(ratio=RATIO, temperature=0.5),
        SelectionPolicy("current_entropy", RATIO, "sequence", temperature=0.2),
        SelectionPolicy(ratio=RATIO, temperature=0.5, alpha=0.6),
        SelectionPolicy(ratio=RATIO, threshold=1.0),
        SelectionPolicy("reference_loss", RATIO, threshold=-2.0, alpha=0.9),
        SelectionPolicy(ratio=RATIO, threshold=1e9),
        SelectionPolicy(ratio=RATIO, reference_loss_cap=1.5),
        SelectionPolicy(ratio=RATIO, scope="sequence", reference_loss_cap=1.5, temperature=1.0, alpha=0.5),
    ]
)


def title(policy: SelectionPolicy) -> str:
    plain = SelectionPolicy()
    return " ".join(str(v) for k, v in vars(policy).items() if k not in ("ratio", "parts") and v != getattr(plain, k))


@pytest.mark.parametrize("measure", [False, True], ids=["", "measured"])
@pytest.mark.parametrize("policy", POLICIES, ids=title)
def test_choice_loss_and_every_gradient_equal_the_naive_weighted_loss(policy, measure, selective):
    model, inputs = tiny("gemma2" if policy.score == "current_loss" else "llama, tied"), batch()
    valid = inputs["labels"][:, 1:] != -100
    logits, _ = full_logits(model, inputs)
    losses, entropies = losses_of(logits, inputs["labels"]), torch.distributions.Categorical(logits=logits).entropy()
    columns = {name: value[:, 1:] for name, value in inputs.items()}
    chosen, weights = naive_weights(policy, losses.detach(), entropies.detach(), columns, valid)
    expected = (weights * losses).sum() / (policy.ratio * int(valid.sum()))
    expected.backward()
    wanted = gradients(model)

    handle = selective(model, policy)
    handle.keep_selection, handle.measure = True, measure
    loss = model(**inputs).loss
    loss.backward()
    assert torch.equal(handle.last_selection[2], chosen)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    assert_same(gradients(model), wanted, rtol=1e-7, atol=1e-9)
    found = handle.stats.read()
    assert found["selected"] == chosen.sum() and found["valid"] == valid.sum() == 30
    if measure or policy.needs_live_loss:
        assert found["measured_valid"] == 30 and found["measured_selected"] == chosen.sum()
        assert found["loss"] == pytest.approx(losses.sum().item())
        assert found["loss_selected"] == pytest.approx(losses[chosen].sum().item())
    else:
        assert found["measured_valid"] == found["loss"] == 0
