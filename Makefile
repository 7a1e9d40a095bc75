# make help lists the targets. Each one sets up .venv first: nothing has to be installed by hand.
PYTHON ?= python3
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help train lab slides site notebooks quick test

help:  ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

train: .venv/ready  ## train DIFF V2 and its softmax baseline: 4 minutes on 2 CPU cores; on a GPU, the larger preset
	$(BIN)/python -m minidiff train --overwrite

lab: .venv/ready  ## open the course in JupyterLab, at its first notebook
	$(BIN)/python -m minidiff.course.lab

slides: .venv/ready  ## the fifty-minute lesson as lesson.html: one file, no network needed
	$(BIN)/python -m minidiff.course.slides notebooks/lesson.ipynb lesson.html

site: .venv/ready  ## the course and the live explorer as a folder of pages, site/: half a minute
	rm -rf site .venv/site
	$(BIN)/python -m sphinx -q -E -c docs -d .venv/site/doctrees . .venv/site/html
	mv .venv/site/html site
	@echo 'open site/index.html, or: python -m http.server -d site'

notebooks: .venv/ready  ## run every notebook and store its outputs: 8 minutes on 2 CPU cores
	$(BIN)/python notebooks/build.py

# The tensors are small: a second thread only waits for the first.
quick test: export OMP_NUM_THREADS = 1
# Nobody's own settings of IPython and matplotlib, and no need of a home that can be written.
quick test notebooks: export IPYTHONDIR = $(CURDIR)/.venv/ipython
quick test notebooks: export MPLCONFIGDIR = $(CURDIR)/.venv/matplotlib

quick: .venv/ready  ## ruff, and the tests that take under a second: a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test: .venv/ready  ## ruff, the tests, and every notebook: 11 minutes on 2 CPU cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=120 \
	    --nbval-sanitize-with notebooks/nbval.cfg notebooks
