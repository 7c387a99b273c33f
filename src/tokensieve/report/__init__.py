"""Pages made from JSON that the pipeline has written; nothing here computes a result."""

from tokensieve.report.page import write_report

__all__ = ["write_report"]
