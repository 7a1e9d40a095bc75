"""Packages that a kernel needs, imported at first use, so that minidiff needs none of them."""

import importlib

import torch

_TRIED = {}  # module -> None, or why it could not be imported


def why_missing(module):
    """None where the module can be imported, else the error."""
    if module not in _TRIED:
        try:
            importlib.import_module(module)
            _TRIED[module] = None
        except (ImportError, OSError, AttributeError) as error:  # OSError: built for another CUDA
            _TRIED[module] = str(error)
    return _TRIED[module]


# What torch.compiler.assume_constant_result does: ask while compiling, do not trace. The decorator
# itself would import the compiler, which takes more than a second of every start.
why_missing._dynamo_marked_constant = True


def needs(module, package, capability, head_sizes, fits=lambda q, k: None):
    """A can_run(q, k, v) for a kernel of a package: None, or the reason why not and the fix.

    Args:
        module: what is imported. package: what pip installs.
        capability: the lowest compute capability (major, minor) of the GPU.
        head_sizes: those that were tested. fits: None, or why the shapes of q and k do not.
    """

    def can_run(q, k, v):
        if not q.is_cuda:
            return f"it needs a CUDA GPU and the tensors are on {q.device}; use backend='sdpa'"
        gpu = torch.cuda.get_device_properties(q.device)
        if (gpu.major, gpu.minor) < capability:
            lowest = f"{capability[0]}.{capability[1]}"
            return f"it needs compute capability {lowest}; use backend='sdpa'"
        if why := why_missing(module):
            return f"{why}; pip install {package}, or use backend='sdpa'"
        if q.dtype not in (torch.bfloat16, torch.float16):
            return f"it needs bfloat16 or float16, not {q.dtype}; cast, or use backend='sdpa'"
        if q.shape[-1] not in head_sizes:
            return f"at head size {q.shape[-1]} it is untested or wrong; use backend='sdpa'"
        return fits(q, k)

    return can_run
