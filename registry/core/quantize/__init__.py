"""Quantizing: which type each tensor of a model gets. The numbers themselves are no concern here.

Source: spec inference-and-gguf 7; the choices are llama.cpp's (src/llama-quant.cpp, without an
importance matrix), so that a file made here has the bytes of one made there.
"""

from registry.core.quantize.plan import Hyper, in_file_order, plan
from registry.core.quantize.targets import TARGETS, Target, stored_as, target

__all__ = ["TARGETS", "Hyper", "Target", "in_file_order", "plan", "stored_as", "target"]
