"""Which tokens are trained on: scores, exact top-k, soft weights, policies. Knows torch and nothing else."""

from tokensieve.selection.apply import Selection, apply_policy
from tokensieve.selection.policy import Part, SelectionPolicy
from tokensieve.selection.scores import TokenColumns, compute_score, hash_uniform
from tokensieve.selection.soft import soft_weights
from tokensieve.selection.topk import select_tokens

__all__ = [
    "Part",
    "Selection",
    "SelectionPolicy",
    "TokenColumns",
    "apply_policy",
    "compute_score",
    "hash_uniform",
    "select_tokens",
    "soft_weights",
]
