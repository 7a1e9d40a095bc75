"""Packages that a kernel needs, imported at first use, so that minidiff needs none of them."""

import importlib

import torch

_FOUND = {}  # module -> what installed() answers; a dict, which torch.compile can look into


def installed(module):
    """The imported module, or the error that says why it cannot be imported."""
    if module not in _FOUND:
        try:
            _FOUND[module] = importlib.import_module(module)
        except (ImportError, OSError, AttributeError) as error:  # OSError: built for another CUDA
            _FOUND[module] = error
    return _FOUND[module]


def needs(module, package, capability, head_sizes, one_query=False):
    """A can_run(q, k, v) for a kernel of a package: None, or the reason why not and the fix.

    Args:
        module: what is imported. package: what pip installs.
        capability: the lowest compute capability (major, minor) of the GPU.
        head_sizes: those that were tested. one_query: only for T = 1.
    """

    def can_run(q, k, v):
        if not q.is_cuda:
            return f"it needs a CUDA GPU and the tensors are on {q.device}; use backend='sdpa'"
        gpu = torch.cuda.get_device_properties(q.device)
        if (gpu.major, gpu.minor) < capability:
            lowest = f"{capability[0]}.{capability[1]}"
            return f"it needs compute capability {lowest}; use backend='sdpa'"
        if isinstance(installed(module), Exception):
            return f"{installed(module)}; pip install {package}, or use backend='sdpa'"
        if q.dtype not in (torch.bfloat16, torch.float16):
            return f"it needs bfloat16 or float16, not {q.dtype}; cast, or use backend='sdpa'"
        if q.shape[-1] not in head_sizes:
            return f"at head size {q.shape[-1]} it is untested or wrong; use backend='sdpa'"
        if one_query and q.shape[1] != 1:
            return "it is for one query"
        return None

    return can_run
