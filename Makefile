# Everything a newcomer needs; `make` alone lists it.

VENV := .venv
BIN := $(VENV)/bin
# The newest interpreter at hand that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
STAMP := $(VENV)/.setup-done
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format goldens bench docs protos clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## virtual environment with everything, in .venv

# The generator's files are named because a stale pilothouse._pb must be made anew.
$(STAMP): pyproject.toml $(wildcard tools/*.py) $(shell find tools/proto -name '*.proto')
	@test -n "$(PYTHON)" || { echo "Pilothouse needs Python 3.11 or newer on PATH." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup ## control plane and a small mesh of real Envoys, with live traffic
	$(BIN)/pilothouse demo

# Three processes, as most tests wait most of the time; tests that share something costly, or the
# same addresses, carry the same xdist_group mark.
test: setup ## the whole test suite
	$(BIN)/pytest -q -n 3 --dist loadgroup $(PYTEST_ARGS)

check: setup ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup ## let the formatter and the safe fixes run
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

goldens: setup ## rewrite the expected files of the golden stories; review the diff
	PILOTHOUSE_UPDATE_GOLDENS=1 $(BIN)/pytest -q tests/golden
	@git status --short tests/golden

bench: setup ## the measured meshes: cold start, push latency, memory; some minutes
	$(BIN)/python benchmarks/run.py --large

docs: setup ## make the generated pages again; check that links between our documents lead somewhere
	$(BIN)/python tools/fields_page.py
	$(BIN)/python tools/check_docs.py

# Outside an isolated build the schema wheels are not installed, on purpose: xds-protos
# overwrites files of other wheels. They go to a folder of their own.
protos: setup ## generate pilothouse._pb again
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/schema \
		$$($(BIN)/python tools/gen_protos.py --list-schema)
	$(BIN)/python tools/gen_protos.py --force --schema-path build/schema

clean: ## remove everything made here
	rm -rf $(VENV) build dist src/*.egg-info src/pilothouse/_pb .mypy_cache .ruff_cache \
		.pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
