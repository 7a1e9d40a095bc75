"""How long a fresh process takes to write its first text on a GPU: first_token.json in $OUT.

    python notebooks/results/measure_first_token.py

Every way and length in a process of its own, first with an empty Triton cache, as on a machine
that never wrote, then with what that one compiled. A minute and a half, from the root.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = 3  # in a process, one after another
WAYS = {  # new tokens
    "token by token": (1, 100),
    "recorded modules": (1, 100),
    "fused": (300,),
}
NOTES = (
    "The 25M DIFF V2, random, bfloat16, a prompt of 16 tokens, one sequence. seconds: for each of "
    "the texts that one process writes, from a model on the GPU to the text. cache: whether Triton "
    "has compiled its kernels before on this machine. token by token: generate.py, with Triton for "
    "attention alone. recorded modules: the modules in a CUDA graph. fused: fast/step.py."
)
CODE = """
import sys, time
import torch
import minidiff.fast
from minidiff.bench.train import SIZES
from minidiff.fast.decoder import write
from minidiff.generate import WRITERS
from minidiff.model import GPT

way, n_new, texts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with torch.device("cuda"):
    model = GPT(SIZES["25m"][0]).bfloat16()
    prompt = torch.zeros(1, 16, dtype=torch.long)
WRITERS.clear()  # generate is then the loop of generate.py
for _ in range(texts):
    torch.cuda.synchronize()
    start = time.perf_counter()
    if way == "token by token":
        model.generate(prompt, n_new, seed=0)
    else:
        write(model, prompt, n_new, 0.8, 40, 0, fused=way == "fused")
    torch.cuda.synchronize()
    print(round(time.perf_counter() - start, 3))
print(torch.cuda.get_device_name(), torch.__version__, sep="; ")
"""


def first_texts(way, n_new, cache):
    """(seconds of each text of a fresh process, "its GPU; its PyTorch")."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, way, str(n_new), str(TEXTS)],
        env=os.environ | {"TRITON_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{way}, {n_new} tokens:\n{done.stderr}")
    *seconds, where = done.stdout.splitlines()
    return [float(s) for s in seconds], where


def main():
    rows = []
    for way, n_new in ((way, n) for way, lengths in WAYS.items() for n in lengths):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty", "filled"):
                seconds, where = first_texts(way, n_new, cache)
                rows.append({"way": way, "new_tokens": n_new, "cache": state, "seconds": seconds})
                print(rows[-1], flush=True)
    gpu, version = where.split("; ")
    found = {
        "command": "python notebooks/results/measure_first_token.py", "date": str(date.today()),
        "machine": gpu, "torch": version, "notes": NOTES, "rows": rows,
    }  # fmt: skip
    path = Path(os.environ.get("OUT", "."), "first_token.json")
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
