"""How precisely the Triton kernels multiply: as PyTorch may."""

import torch

TOLERANCES = {"ieee": 1e-4, "tf32": 2e-2}
"""How far kernels may be from exact products, by what ``precision`` returns: TF32 has ten bits after the point."""


def precision() -> str:
    """Return ``"ieee"``, or ``"tf32"`` after ``torch.set_float32_matmul_precision("high")`` and its likes.

    These are names of Triton's ``input_precision``.
    """
    settings = torch.backends.cuda.matmul
    # Before PyTorch 2.9 there was the second only.
    reduced = (
        settings.fp32_precision == "tf32" if hasattr(settings, "fp32_precision") else settings.allow_tf32
    )
    return "tf32" if reduced else "ieee"
