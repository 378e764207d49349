# `make demo` and `make test` need nothing but Python 3.11 or newer and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint type cookbook jupyter live parity bench fuzz check clean

help:
	@echo "make demo   a customer-service chain on the embedded models: no server, no key"
	@echo "make test   the tests: no network, no server"
	@echo "make lint   ruff and the import contracts    make type   mypy --strict"
	@echo "make cookbook executes the notebooks of cookbook/ on the embedded models, and checks their numbers"
	@echo "make jupyter  opens them in JupyterLab"
	@echo "make live   installs and starts vLLM, SGLang and llama.cpp on the CPU, and runs the contract on them"
	@echo "make parity the scores beside those of the model cards' own code, as a table"
	@echo "make bench  the tables of docs/performance.md, made anew on this machine (30 to 60 minutes)"
	@echo "make check  lint, type, test"

# What users install; the stamp is newer than pyproject.toml when the environment is complete.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[all]"
	touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --group dev
	touch $@

$(VENV)/ready-cookbook: $(VENV)/ready-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[cookbook]"
	touch $@

demo: $(VENV)/ready
	$(BIN)/ragpair demo

test: $(VENV)/ready-dev
	$(BIN)/pytest -n auto --maxprocesses 8

lint: $(VENV)/ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

type: $(VENV)/ready-dev
	$(BIN)/mypy

cookbook: $(VENV)/ready-cookbook
	$(BIN)/pytest tests/cookbook -m cookbook -n auto --maxprocesses 2 --dist loadgroup

jupyter: $(VENV)/ready-cookbook
	$(BIN)/pip install --quiet --disable-pip-version-check jupyterlab
	$(BIN)/jupyter lab cookbook

live: $(VENV)/ready-cookbook
	$(BIN)/pytest tests/live -m live

parity: $(VENV)/ready-dev
	$(BIN)/python -m tests.live.parity --write docs/parity.md

fuzz: $(VENV)/ready-dev
	RAGPAIR_FUZZ_SECONDS=600 $(BIN)/pytest tests/faults/test_fuzz.py --timeout=0

bench: $(VENV)/ready-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m benchmarks --write

check: lint type test

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
