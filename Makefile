# Two commands for a fresh machine: `make demo` and `make test`. Needs Python ≥ 3.11, git and make.

PYTHON ?= python3
SEED ?= 0
# More flags for JupyterLab, such as --no-browser, or --allow-root in a container.
LAB ?=
BIN := .venv/bin
# uv where it is on the PATH, else pip: the same packages, uv is quicker.
UV := $(shell command -v uv 2>/dev/null)

# Strict: each cell of each notebook runs again, and prints what is stored, or it fails.
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 120 --nbval-sanitize-with book/sanitize.cfg

.PHONY: help demo book lab notebooks test bench accuracy soak mutation lint install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo [SEED=1]  train a small RetinaNet, evaluate it, write pictures to runs/demo"
	@echo "make book           build the book, to be opened from the disk"
	@echo "make lab            open the chapters in JupyterLab"
	@echo "make notebooks      run every chapter again and store what it prints"
	@echo "make test           run every test, every chapter among them"
	@echo "make mutation       change the code a little, again and again: do the tests notice?"
	@echo "make soak           kill training runs, damage files: nothing is lost, nothing hangs"
	@echo "make bench          ours against torchvision's RetinaNet, in half an hour or less (BENCH=--quick: in a minute)"
	@echo "make accuracy       both trained on the same photographs (VOC=folder WEIGHTS=file ACCURACY=--small)"
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

# .venv/.dev, .venv/.book, .venv/.lab: the same with one of the extras of pyproject.toml.
.venv/.%: .venv/.core
ifdef UV
	uv pip install --quiet --python $(BIN)/python --editable '.[$*]'
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
endif
	@touch $@

install: .venv/.dev

demo: .venv/.core
	@$(BIN)/retinanet-edu demo --seed $(SEED) --output runs/demo

book: .venv/.book
	@mkdir -p book/_build
	@$(BIN)/jupyter-book build book -W -n --keep-going -q >book/_build/log 2>&1 || \
	  { cat book/_build/log; exit 1; }
	@echo "open book/_build/html/intro.html in a browser"

lab: .venv/.lab
	@JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab $(LAB) $(firstword $(wildcard book/0*.ipynb))

notebooks: .venv/.book
	@$(BIN)/python book/execute.py

# Two workers share the cores: without these, threads that wait for one another spin.
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = PASSIVE
test: export GOMP_SPINCOUNT = 0
test: .venv/.dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(NBVAL) tests book/*.ipynb

# A training run killed sixty times, and readers given files that are damaged at random.
soak: .venv/.dev
	@$(BIN)/python tests/soak.py

# MODULES="boxes.py coding.py" names some of the modules; without it, all.
mutation: export OMP_NUM_THREADS = 1
mutation: export OMP_WAIT_POLICY = PASSIVE
mutation: export GOMP_SPINCOUNT = 0
mutation: .venv/.mutation
	@nice -n 15 $(BIN)/python -W ignore tests/mutation/run.py --record $(MODULES)

bench: .venv/.dev
	@$(BIN)/python benchmarks/speed.py $(BENCH)

# VOC=folder that contains VOCdevkit, WEIGHTS=backbone's file; ACCURACY="--small" for two CPU cores.
accuracy: .venv/.dev
	@$(BIN)/python benchmarks/accuracy.py --data $(VOC) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ACCURACY)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs build dist book/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
