"""Make the page a folder that needs nothing: open its index.html, or serve it.

    python -m minidiff.look.page.build site/explorer

The models travel twice: as files, which a server's page fetches when it needs them, and as scripts
with the same bytes in base64, since a page opened from file:// may run a script but fetch nothing.
Weights are rounded to int8 with one factor a row: half of bfloat16, see :func:`quantise`.
"""

import argparse
import base64
import html
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save

PAGE = Path(__file__).parent
SHIPPED = PAGE.parents[2] / "notebooks" / "checkpoints"
MODELS = {"softmax": "softmax_1.5h", "diff_v2": "diff_v2"}  # key in index.html -> shipped run
NOTICE = """\
minidiff: MIT licence, see LICENSE in the repository. This folder holds no other program: the page
is written without libraries and uses the fonts of the system. The models were trained on the Python
standard library's sources (PSF licence); notebooks/checkpoints/README.md says how.
"""


def build(out, checkpoints=SHIPPED, home=None):
    """Write the whole folder; its pages link to ``home``, the address of the course, if given.

    Raises:
        ValueError: a shipped run, or the bundle, is not there.
    """
    out = Path(out)
    bundles = [PAGE / "dist" / name for name in ("explorer.js", "forms.js")]
    if not all(bundle.exists() for bundle in bundles):
        raise ValueError(f"{PAGE / 'dist'} is not whole: run `npm ci && npm run build` in {PAGE}")
    (out / "models").mkdir(parents=True, exist_ok=True)
    for bundle in bundles:
        shutil.copy(bundle, out / bundle.name)
    link = "" if home is None else f' <a href="{html.escape(home)}">The course</a> explains them.'
    for name in ("index.html", "forms.html"):
        page = (PAGE / name).read_text(encoding="utf-8").replace("<!-- home -->", link)
        page = page.replace("home: null", f"home: {json.dumps(home)}")
        (out / name).write_text(page, encoding="utf-8")
    (out / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")
    for key, name in MODELS.items():
        write_model(Path(checkpoints) / name, out / "models" / key, f"models/{key}")


def write_model(run, folder, address):
    """A run folder in int8, and beside it the script that brings the same without a server."""
    if not (run / "model.safetensors").exists():
        raise ValueError(f"{run} holds no model.safetensors: train it, or name another folder")
    folder.mkdir(exist_ok=True)
    config = (run / "config.json").read_text(encoding="utf-8")
    weights = save(quantise(load_file(run / "model.safetensors")))
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    brought = ", ".join(map(json.dumps, (address, config, base64.b64encode(weights).decode())))
    folder.with_name(f"{folder.name}.js").write_text(
        f"minidiff.deliver({brought});\n", encoding="utf-8"
    )


def quantise(weights):
    """Matrices in int8: name -> (rows, columns) int8 and name.scale -> (rows,) float32.

    weight = int8 * scale of its row, so that a row's largest weight is 127. Vectors stay float32.
    """
    result = {}
    for name, tensor in weights.items():
        tensor = tensor.float()
        if tensor.dim() == 2:
            scale = tensor.abs().amax(1).clamp_min(1e-12) / 127  # (rows,)
            result[f"{name}.scale"] = scale
            tensor = (tensor / scale[:, None]).round().to(torch.int8)
        result[name] = tensor.contiguous()
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the page as a static folder.")
    parser.add_argument("out", type=Path, help="the folder, such as site/explorer")
    parser.add_argument("--checkpoints", type=Path, default=SHIPPED, help="where the runs lie")
    chosen = parser.parse_args()
    try:
        build(chosen.out, chosen.checkpoints)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{chosen.out / 'index.html'}: open it, or serve its folder")
