"""What a run will cost, before anything runs: tokens, FLOPs, storage, memory and hours on named hardware."""

from tokensieve.planning.costs import UTILISATION, plan
from tokensieve.planning.hardware import HARDWARE, Hardware
from tokensieve.planning.table import format_plan

__all__ = ["HARDWARE", "UTILISATION", "Hardware", "format_plan", "plan"]
