# Two commands do everything on a fresh machine; each sets itself up in a virtual environment.
#   make example    tune the example on this machine: a real training, no cluster
#   make test       the tests that need no control plane
# and `make test-all` also builds or finds a real Kubernetes control plane (Go is needed) and runs all tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: example test test-all lint clean

example: $(INSTALLED)
	$(BIN)/autotuner tune deploy/examples/digits/job.yaml
	$(BIN)/autotuner report digits-tuning --output digits-tuning/report.html

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-all: $(INSTALLED)
	$(BIN)/python -m tests.controlplane.build
	$(BIN)/python -m pytest tests/unit tests/simulation tests/contract tests/end_to_end tests/cluster tests/helm

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) digits-tuning

# --group needs pip 25.1; a new environment may hold an older one.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --progress-bar off --editable . --group test --group lint
	touch $@
