"""Which tokens are trained on: scores, exact top-k, policies. Knows torch and nothing else."""

from tokensieve.selection.policy import Part, SelectionPolicy
from tokensieve.selection.scores import TokenColumns, compute_score, hash_uniform
from tokensieve.selection.topk import apply_policy, select_tokens

__all__ = [
    "Part",
    "SelectionPolicy",
    "TokenColumns",
    "apply_policy",
    "compute_score",
    "hash_uniform",
    "select_tokens",
]
