# Every target works as the first command on a fresh machine: it sets up .venv when that is needed.
# More in CONTRIBUTING.md. Without make: see README.md.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
FLAGS  ?=
# where this is set, every process that a test starts compiles all it imports anew (pip compiles nothing: most of it is never imported)
unexport PYTHONDONTWRITEBYTECODE
# one thread each: sums of untrained code books choose other codes with more; three workers, since many tests wait for something
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests </dev/null

.PHONY: help setup demo results docs docs-check test test-notebooks test-pytest lab clean-runs readme export check hooks

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1@/' | awk -F@ '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY) ## .venv with the exact versions of constraints.txt (minutes, once)

$(READY): settings.ini setup.py constraints.txt tools/papermill_launcher.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "album_gan needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1). Name another one: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(READY)
	@# A recent pip takes half the time of the one that comes with Python 3.11.
	-$(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet --no-compile -c constraints.txt -U pip
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off --no-compile -c constraints.txt -e '.[dev]'
	@# Two encoders whose packages ask for far more than is used of them (TensorFlow; Unidecode, GPL); tests skip without.
	-$(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet --no-compile --no-deps musicnn==0.1.0 jukebox-infer==0.1.2
	@$(BIN)/python tools/papermill_launcher.py
	@touch $(READY)
	@echo "Ready. Next: make demo, or: source $(BIN)/activate"

demo: $(READY) ## train on the demo world and see covers change with the music
	@$(BIN)/python tools/demo.py

results: $(READY) ## the results table and figures: runs what is missing (about an hour and a half on two idle cores; QUICK=True: a look in minutes)
	@mkdir -p results/notebooks
	@$(BIN)/python -m papermill nbs/results.ipynb results/notebooks/results.ipynb --no-progress-bar -p quick $(or $(QUICK),False)

docs: $(READY) ## the site, in _docs/
	@$(BIN)/python tools/docs.py

docs-check: $(READY) ## the site, then a walk through all of it in headless Chromium
	@$(BIN)/python tools/docs.py --check

test: $(READY) ## nbdev_test on the notebooks, then pytest; FLAGS="slow" runs the marked cells too
	@status=0; \
	$(BIN)/python tools/test_notebooks.py --flags "$(FLAGS)" || status=$$?; \
	$(PYTEST) || status=$$?; \
	exit $$status

test-notebooks: $(READY) ## only the notebooks
	@$(BIN)/python tools/test_notebooks.py --flags "$(FLAGS)"

test-pytest: $(READY) ## only pytest
	@$(PYTEST)

lab: $(READY) ## the notebooks in JupyterLab
	@$(BIN)/python -m jupyterlab nbs/index.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

clean-runs: ## remove weights, checkpoints and runs that were never committed (asks first)
	@$(PYTHON) tools/clean_runs.py

readme: $(READY) ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

export: $(READY) ## the library from the notebooks, the notebooks clean, the README up to date
	@PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_export
	@PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_clean
	@$(BIN)/python tools/readme.py

check: ## everything that CI runs
	@.ci/run

hooks: $(READY) ## opt in to nbdev's git hooks (they write to ~/.jupyter and .git; notebooks then merge cell by cell)
	@PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_install_hooks
