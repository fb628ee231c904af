# What a developer runs; `make help` lists it. Everything happens in .venv, built from constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
PACKAGES := app strategies unlearning
BUNDLE := build/bundle/lethe
CHECKED := $(PACKAGES) benchmarks

# Flower would otherwise build a fresh environment of several GB for every run, and call home at every start.
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bundle clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) ## build .venv with the exact versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup ## train on digits with a poisoned client, forget it, and audit what is left
	$(BIN)/lethe demo

test: lint ## lint, then run every test and doctest, in as many processes as there are cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

lint: setup ## style, docstrings, types and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CHECKED)
	$(BIN)/lint-imports

format: setup ## rewrite the sources in the form that lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bundle: setup ## build the bundle (FAB) for a SuperLink in build/bundle
	rm -rf build/bundle
	mkdir -p $(BUNDLE)
	cp -R $(PACKAGES) LICENSE $(BUNDLE)
	cp pyproject-flwr.toml $(BUNDLE)/pyproject.toml
	cd build/bundle && $(CURDIR)/$(BIN)/flwr build --app lethe

clean: ## remove what was built, except .venv
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find $(PACKAGES) tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +
