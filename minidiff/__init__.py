"""minidiff: Differential Transformer V2, its model in two files to read in one sitting."""

from minidiff.attention import attention, attention_weights, diff_attention, differential
from minidiff.fast import available_backends  # also adds its kernels to attention.py
from minidiff.model import GPT, GPTConfig
from minidiff.runs import load_pretrained
from minidiff.variants import VARIANTS, build, variant  # also makes their names known to GPTConfig

__all__ = [
    "GPT",
    "VARIANTS",
    "GPTConfig",
    "attention",
    "attention_weights",
    "available_backends",
    "build",
    "diff_attention",
    "differential",
    "load_pretrained",
    "variant",
]
