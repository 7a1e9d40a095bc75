"""JupyterLab on the course, for ``make lab``: its explorers alive, and the first notebook open.

    python -m minidiff.course.lab [options of jupyter lab]

JupyterLab runs no script of a notebook that it does not trust, and it trusts what was run here. So
the course's notebooks are signed first. The question about news is left out. Where the home folder
cannot be written, what JupyterLab keeps lies in a folder that goes when it ends.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FIRST = "00_start_here.ipynb"
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
KEPT = {  # environment variable -> its folder; JupyterLab and what a notebook imports write there
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
    "MPLCONFIGDIR": "matplotlib",
}


def main(options):
    """Start JupyterLab here; returns when it ends."""
    try:
        from jupyterlab.labapp import LabApp
    except ImportError:
        sys.exit("error: JupyterLab is not installed: run `make lab`, or pip install jupyterlab")
    with tempfile.TemporaryDirectory(prefix="minidiff-lab-") as folder:
        own = Path(folder)
        prepare(own)
        trust(course())
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        if root:
            print("You are root: JupyterLab starts with --allow-root.")
        # a file as an argument would be opened, but not named in the address that is printed
        where = [f"--ServerApp.root_dir={NOTEBOOKS}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
        LabApp.launch_instance([*where, *(["--allow-root"] if root else []), *options])


def prepare(own):
    """Set the environment of JupyterLab: its settings, and where to keep things."""
    (own / "labconfig").mkdir()
    (own / "labconfig" / "default_setting_overrides.json").write_text(
        json.dumps(SETTINGS), encoding="utf-8"
    )
    paths = [str(own), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, paths))
    if not can_keep():
        print("The home folder cannot be written: JupyterLab's settings are kept until it ends.")
        os.environ.update({name: str(own / part) for name, part in KEPT.items()})


def can_keep():
    """Whether JupyterLab can write where it keeps settings, signatures and running servers."""
    from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir

    try:
        for folder in (jupyter_config_dir(), jupyter_data_dir(), jupyter_runtime_dir()):
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError:
        return False
    return True


def course():
    """Every notebook of the course, solutions too."""
    return [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("solutions/*.ipynb"))]


def trust(paths):
    """Sign these notebooks as they are stored; one that cannot be read is named, and left alone."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for path in paths:
        try:
            notebook = nbformat.read(path, as_version=4)
        except (OSError, ValueError) as error:
            print(f"{path.name} is no notebook ({type(error).__name__}): git checkout {path}")
        else:
            notary.sign(notebook)


if __name__ == "__main__":
    main(sys.argv[1:])
