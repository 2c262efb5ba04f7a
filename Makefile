# Two commands for a fresh machine: `make demo` and `make test`. Needs Python ≥ 3.11, git and make.

PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
# uv where it is on the PATH, else pip: the same packages, uv is quicker.
UV := $(shell command -v uv 2>/dev/null)

.PHONY: help demo test lint install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo [SEED=1]  train a small RetinaNet, evaluate it, write pictures to runs/demo"
	@echo "make test           run every test"
	@echo "make lint           style and types"
	@echo "make install        only the virtual environment, .venv"
	@echo "make clean          remove the virtual environment and all runs"

# Each stamp is newer than what it installed from, so a second run installs nothing.
.venv/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 …"; exit 1; }
ifdef UV
	@test -d .venv || uv venv --quiet --python $(PYTHON) .venv
	uv pip install --quiet --python $(BIN)/python --editable .
else
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
endif
	@touch $@

.venv/.dev: .venv/.core
ifdef UV
	uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
endif
	@touch $@

install: .venv/.dev

demo: .venv/.core
	@$(BIN)/retinanet-edu demo --seed $(SEED) --output runs/demo

test: .venv/.dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
