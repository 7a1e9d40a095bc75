"""Run the notebooks and store their outputs, the same bytes each time:

    python notebooks/build.py            every notebook and every solution
    python notebooks/build.py 01 03      those whose name starts so (solutions too), or a path

What differs from run to run is not stored: times, random ids, widget state, the version of
matplotlib. A live widget is stored as its picture, so that it can be seen before anything runs. A
cell tagged nbval-ignore-output shows this machine's timings: it keeps what is stored until its
source changes (or its outputs are cleared). What a cell tagged predict shows is folded away until
the reader runs it. A notebook that fails is left as it was.
"""

import base64
import hashlib
import os
import struct
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT = 300  # seconds; nbval allows 120
KEPT = "tags", "source_sha", "slideshow"  # of the metadata of a cell
VIEW = "application/vnd.jupyter.widget-view+json"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
FIXED = {  # the same arithmetic and the same order of sets in every run
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
    "PYTHONHASHSEED": "0",
}


def main(names):
    """Build the notebooks; returns the exit status: 0, or 1 if one of them failed."""
    paths = find(names)
    os.environ.update(FIXED)
    failed = []
    for path in paths:
        began = time.monotonic()
        try:
            changed = build(path)
        except (CellControlSignal, DeadKernelError) as error:
            failed.append(path.name)
            print(f"{path.name}: FAILED, left as it was\n{error}", file=sys.stderr)
        else:
            state = "stored" if changed else "unchanged"
            print(f"{path.name}: {state}, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


def find(names):
    """The notebooks to build, in order; a name that fits none ends the program."""
    everything = [*sorted(HERE.glob("*.ipynb")), *sorted(HERE.glob("solutions/*.ipynb"))]
    if not names:
        return everything
    paths = []
    for name in names:
        path = Path(name)
        fits = [path] if path.is_file() else [p for p in everything if p.name.startswith(name)]
        if not fits:
            known = ", ".join(p.stem for p in everything if p.parent == HERE) or "none yet"
            sys.exit(f"no notebook is called {name}; there are: {known}")
        paths += fits
    return paths


def build(path):
    """Run one notebook and store its outputs. Returns whether the file's bytes changed.

    Raises:
        CellControlSignal: a cell raised an error or took too long; the message shows the cell.
    """
    notebook = nbformat.read(path, as_version=4)
    stored = {i: cell.outputs for i, cell in enumerate(notebook.cells) if keeps_outputs(cell)}
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.execute()
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata = hidden({k: v for k, v in cell.metadata.items() if k in KEPT})
        if cell.cell_type == "code":
            cell.outputs = stored.get(i) or [clean(output, client) for output in cell.outputs]
            if is_measured(cell):
                cell.metadata["source_sha"] = digest(cell)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    new, old = nbformat.writes(notebook) + "\n", path.read_text(encoding="utf-8")
    if new != old:
        part = path.with_suffix(".part")
        part.write_text(new, encoding="utf-8")
        part.replace(path)  # an interrupted write leaves the old notebook whole
    return new != old


def hidden(metadata):
    """Of a cell tagged predict: its output folded away until asked for (JupyterLab, the site).

    And the source of one tagged remove-cell, which is there for a machine and not for a reader.
    """
    tags = metadata.get("tags", [])
    if "remove-cell" in tags:
        return metadata | {"jupyter": {"source_hidden": True}}
    if "predict" not in tags:
        return metadata
    return metadata | {
        "tags": [*tags, *{"hide-output"} - {*tags}],
        "jupyter": {"outputs_hidden": True},
    }


# ---- Cells with timings ------------------------------------------------------------------------


def is_measured(cell):
    """Whether the cell shows what differs from run to run and machine to machine."""
    return "nbval-ignore-output" in cell.metadata.get("tags", [])


def digest(cell):
    """A short fingerprint of the cell's source."""
    return hashlib.sha256(cell.source.encode()).hexdigest()[:16]


def keeps_outputs(cell):
    """Whether stored measurements still belong to the cell's source."""
    return is_measured(cell) and cell.outputs and cell.metadata.get("source_sha") == digest(cell)


# ---- Outputs -----------------------------------------------------------------------------------


def clean(output, client):
    """The output without what differs between runs, and with a picture in place of a widget."""
    if "data" not in output:
        return output
    data = output.data
    view = data.pop(VIEW, None)
    if view and not {"text/html", "image/png"} & set(data):
        picture = find_picture(view["model_id"], client)
        if picture:
            data["image/png"] = picture
            output.metadata["image/png"] = {"alt": data.get("text/plain", "a widget")}
    if "image/png" in data:
        pixels = strip_png(base64.b64decode(data["image/png"]))
        data["image/png"] = base64.b64encode(pixels).decode() + "\n"
    return output


def find_picture(model_id, client):
    """The base64 PNG of the first Image widget at or below this one, or None."""
    state = client.widget_state.get(model_id, {})
    if state.get("_model_name") == "ImageModel":
        buffers = client.widget_buffers.get(model_id, {}).values()
        return next((b["data"] for b in buffers if b["path"] == ["value"]), None)
    children = (child.removeprefix("IPY_MODEL_") for child in state.get("children", []))
    return next(filter(None, (find_picture(child, client) for child in children)), None)


def strip_png(data):
    """A PNG without its text and time chunks, where programs write their versions and dates."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 12 + length  # length, name, content, checksum
        if data[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
