# Every target builds .venv first if it is missing; all it takes is Python (3.10 to 3.13) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# compiled modules are kept, even where the machine says otherwise: each worker and each process that a test starts reads them
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist worksteal --durations 10

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow docs lint format types check lock build clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(READY)  ## Build .venv from requirements.lock and install the package into it, editable

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "error: Python %d.%d is not supported: pass make PYTHON=python3.x with one of 3.10 to 3.13" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## Train a teacher and two students on synthetic people, compare them, draw what was learnt
	$(BIN)/python -m distilpose.quickstart

test: setup  ## Run the tests (at most 6 minutes on two cores)
	$(PYTEST) -n auto -m "not slow"

test-slow: setup  ## Run the tests that need processes, signals, browsers or clocks (at most 12 minutes)
	@# three workers: these tests often wait, and two leave the cores idle then; each imports only the files with such tests
	$(PYTEST) -n 3 -m slow $$(grep -rl 'mark\.slow' tests --include='test_*.py')

docs: setup  ## Build the site of the documents into site/, and check its links
	$(BIN)/python -m mkdocs build --strict

lint: setup  ## Check style with ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup  ## Format, and apply ruff's automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: setup  ## Check types with mypy
	$(BIN)/mypy

check: lint types test test-slow  ## Everything that must pass before a change is merged

lock: setup  ## Renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes --no-annotate --no-header --quiet --upgrade -o requirements.lock

build: setup  ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## Remove .venv, caches and built wheels; data and runs stay
	rm -rf $(VENV) dist build site .mypy_cache .mypy_worker.*.json .ruff_cache .pytest_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
