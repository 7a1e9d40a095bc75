"""minidiff: Differential Transformer V2, small enough to read in one sitting."""

from minidiff.attention import attention, attention_weights, diff_attention, differential
from minidiff.backends import available_backends
from minidiff.model import GPT, GPTConfig

__all__ = [
    "GPT",
    "GPTConfig",
    "attention",
    "attention_weights",
    "available_backends",
    "diff_attention",
    "differential",
]
