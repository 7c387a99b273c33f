"""tokensieve: Selective Language Modeling (Rho-1, NeurIPS 2024), exact and installable."""

from typing import TYPE_CHECKING, Any

from tokensieve.head import token_losses
from tokensieve.online import attach_reference
from tokensieve.selection import Part, SelectionPolicy, select_tokens
from tokensieve.selective import make_selective

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # The viewer reads runs and stores: whoever wants the loss alone need not wait for all of that.
    if name in ("NotebookView", "view"):
        from tokensieve.viewer import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
