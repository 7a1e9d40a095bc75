"""Shared by all tests: skip GPU tests with a reason, one seed, no surprise from the GPU's clock."""

import signal
import sys

import pytest
import torch
from hypothesis import settings

# They fork, and use named pipes, limits of resources and modes of files, which Windows has not.
POSIX_ONLY = ["test_hostile.py", "test_kills.py", "test_limits.py",
              "test_resume.py", "test_runs.py", "test_sources.py",
              "test_sources_properties.py"]  # fmt: skip
collect_ignore = POSIX_ONLY if sys.platform == "win32" else []

settings.register_profile("minidiff", deadline=None, derandomize=True)
settings.load_profile("minidiff")

# A shell's job in the background ignores Ctrl-C, and all that it starts: some tests are about it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA GPU, and PyTorch sees none here")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def config(tmp_path):
    """A tiny TrainConfig with its text."""
    from training import tiny_config

    return tiny_config(tmp_path)
