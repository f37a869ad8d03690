# Each target is complete by itself: what it needs is installed first. `make` alone lists them.

PYTHON ?= python3
STUDY ?= demo
CORES ?= 2
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
RUN := $(BIN)/python -m

# uv is much faster than pip; it is told of an index that pip is configured with (a company mirror, say).
UV_INSTALL = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(RUN) pip config get global.index-url 2>/dev/null)}}" \
	$(RUN) uv pip install --python $(BIN)/python $$(test -t 2 || echo --quiet)

.DEFAULT_GOAL := help
.PHONY: help env demo study lab test lint lock clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' Makefile | while read -r name text; do printf 'make %-7s %s\n' "$$name" "$$text"; done

env: $(READY) ## make .venv and install the pinned packages and this project (PYTHON=python3.12 chooses another Python)

demo: STUDY = demo
demo: study ## run the demo study on embedded data and weights, and say where its report is

study: $(READY) ## run a whole study, resuming where it stopped: make study STUDY=voc07 (CORES=2)
	@$(RUN) snakemake --cores $(CORES) --rerun-incomplete --keep-going --nolock --quiet host reason --config study=$(STUDY) $(ARGS)
	@printf '\nReport: %s\n' "$(CURDIR)/reports/$(STUDY)/index.html"

lab: $(READY) ## open the notebooks in JupyterLab
	@$(RUN) jupyterlab notebooks

test: $(READY) ## run the tests
	@OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses logical --maxprocesses 4 --quiet

lint: $(READY) ## check style, types and that notebooks carry no outputs
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) nbstripout --verify --keep-id notebooks/*.ipynb

lock: $(READY) ## choose the newest versions that pyproject.toml allows, into requirements.lock
	@$(RUN) uv pip compile --no-config --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--group dev pyproject.toml --output-file requirements.lock

clean: ## remove caches (.venv, data and reports stay)
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .snakemake build dist
	@find lib tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "foundling needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
		echo "Install one, or name one that is there: make env PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments (its venv or ensurepip module is missing)."; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Installing into .venv (minutes the first time: PyTorch is large)"
	@$(PYTHON) -m venv .venv
	@awk '/^[^ ]/ {keep = /^uv==/} keep' requirements.lock > .venv/uv.lock
	@$(RUN) pip install -qq --disable-pip-version-check --require-hashes --requirement .venv/uv.lock
	@$(UV_INSTALL) --require-hashes --requirement requirements.lock
	@$(UV_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(READY)
