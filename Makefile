# What a developer runs; `make help` lists it. Everything happens in .venv, built from constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
PACKAGES := app strategies unlearning
BUNDLE := build/bundle/lethe
CHECKED := $(PACKAGES) lethe.py benchmarks $(addprefix docs/,house.py drawing.py matrix.py matrix_runs.py pictures.py plane.py reference.py site.py toy.py)

# Flower would otherwise build a fresh environment of several GB for every run, and call home at every start.
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
# Where this is set, as in many containers, every fresh process compiles torch anew: three seconds each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test check browser lint format generate bundle clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) ## build .venv with the exact versions of constraints.txt

# uv takes a quarter of pip's time; where neither the machine nor the package index has it, pip does the same.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	PATH="$$PATH:$(CURDIR)/$(BIN)"; \
	uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install -q -c constraints.txt uv || true; \
	if uv --version >/dev/null 2>&1; then uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'; fi
	touch $@

demo: setup ## train on digits with a poisoned client, forget it, and audit what is left
	$(BIN)/lethe demo

docs: setup ## build the documentation as a site that needs no network, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/site/index.html

test: lint ## lint, then run every test and doctest that needs nothing but processors
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not check" -n auto --dist loadfile

check: setup browser ## run what waits or needs more: deployed federations, the README's commands, a browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -m check -n auto --dist loadfile

browser:
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium) >/dev/null

lint: setup ## style, docstrings, types and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/python -m app.config.reference --check
	$(BIN)/python -m docs.house --check
	$(BIN)/python -m docs.pictures --check

format: setup ## rewrite the sources in the form that lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: setup ## write what is generated: both manifests' keys, docs/config.md, all pictures, and docs/matrix.md (minutes)
	$(BIN)/python -m app.config.reference
	$(BIN)/python -m docs.house
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.toy
	$(BIN)/python -m docs.pictures
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.matrix

bundle: setup ## build the bundle (FAB) for a SuperLink in build/bundle
	rm -rf build/bundle
	mkdir -p $(BUNDLE)
	cp -R $(PACKAGES) lethe.py LICENSE README.md $(BUNDLE)
	cp pyproject-flwr.toml $(BUNDLE)/pyproject.toml
	cd build/bundle && $(CURDIR)/$(BIN)/flwr build --app lethe

clean: ## remove what was built, except .venv
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find $(PACKAGES) tests benchmarks docs -type d -name __pycache__ -prune -exec rm -rf {} +
