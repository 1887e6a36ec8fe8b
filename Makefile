# The environment lives in .venv and is rebuilt when pyproject.toml or constraints.txt change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEVKIT := .venv/devkit

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast examples lint format devkit bench clean

help: ## what can be made (this text)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## learn CarRacing for a few minutes, and show what was learnt
	$(BIN)/dreamdrive demo

test: lint ## lint, then every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

test-fast: $(STAMP) ## the tests that take less than a second each: two minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

examples: $(STAMP) ## run every example
	@set -e; for example in examples/*.py; do echo "$$example"; $(BIN)/python "$$example"; done

devkit: $(DEVKIT)/.installed ## nuScenes' official devkit, for the test that compares our reader with it

lint: $(STAMP) ## ruff and mypy, nothing changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## ruff writes the code's form and sorts imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## speed of updates, dreams, plans, environment, replay and loading, each beside its limit
	$(BIN)/python benchmarks/update.py --size 1m
	$(BIN)/python benchmarks/update.py --size 12m
	$(BIN)/python benchmarks/dream.py
	$(BIN)/python benchmarks/planner.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/env.py
	$(BIN)/python benchmarks/replay.py

clean: ## remove the environment and the tools' caches, never runs or data
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "dreamdrive needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12" >&2; exit 1; }
	@rm -f $@
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(DEVKIT)/.installed: constraints-devkit.txt | $(STAMP)
	test -x $(DEVKIT)/bin/pip || $(PYTHON) -m venv $(DEVKIT)
	$(DEVKIT)/bin/python -m pip install --quiet --constraint constraints-devkit.txt nuscenes-devkit
	@touch $@
