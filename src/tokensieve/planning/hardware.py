"""Accelerators that `plan` knows by name: peak arithmetic and memory from the makers' data sheets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hardware:
    """One device."""

    label: str
    """What tables call it."""
    teraflops: float
    """Peak of dense matrix products in 1e12 operations a second: bfloat16 with float32 sums on a GPU."""
    memory_gb: float
    """Memory in 1e9 bytes; for a CPU core, its share of the machine's."""
    replicated: bool = True
    """Whether each device holds a replica of its own. The cores of a CPU work on one model together."""


HARDWARE = {
    # NVIDIA H100 data sheet, SXM column; its 1,979 TFLOP/s are with sparsity.
    "h100": Hardware("H100 SXM", 989, 80),
    # NVIDIA H200 data sheet, SXM column: the same arithmetic as the H100.
    "h200": Hardware("H200 SXM", 989, 141),
    # NVIDIA A100 data sheet, 80 GB SXM column.
    "a100": Hardware("A100 SXM 80 GB", 312, 80),
    # NVIDIA L40S data sheet: 733 TFLOP/s with sparsity.
    "l40s": Hardware("L40S", 362, 48),
    # NVIDIA Ada architecture white paper: bfloat16 with float32 sums.
    "rtx4090": Hardware("RTX 4090", 165, 24),
    # Measured: float32 product of two 1024 x 1024 matrices in torch 2.13, one core of a server with AVX-512.
    "cpu-core": Hardware("x86-64 core", 0.1, 4, replicated=False),
}
