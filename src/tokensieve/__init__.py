"""tokensieve: Selective Language Modeling (Rho-1, NeurIPS 2024), exact and installable."""

from tokensieve.head import token_losses
from tokensieve.online import attach_reference
from tokensieve.selection import Part, SelectionPolicy, select_tokens
from tokensieve.selective import make_selective
from tokensieve.viewer.notebook import NotebookView, view

__version__ = "0.1.0"

__all__ = [
    "NotebookView",
    "Part",
    "SelectionPolicy",
    "__version__",
    "attach_reference",
    "make_selective",
    "select_tokens",
    "token_losses",
    "view",
]
