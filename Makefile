# Two commands do everything on a fresh machine; each sets itself up in a virtual environment.
#   make example    tune the example on this machine: a real training, no cluster
#   make test       the tests that need no control plane
# and `make test-all` also builds or finds a real Kubernetes control plane (Go is needed) and runs all tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: example test test-all test-lowest lint clean

example: $(INSTALLED)
	$(BIN)/autotuner tune deploy/examples/digits/job.yaml --python $(BIN)/python
	$(BIN)/autotuner report digits-tuning --output digits-tuning/report.html

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

test-all: $(INSTALLED)
	$(BIN)/python -m tests.controlplane.build
	$(BIN)/python -m pytest -n 2
	$(BIN)/python -m pytest tests/cluster tests/helm

# The lower bounds of pyproject.toml, each installed as it stands there.
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --python $(VENV)-lowest/bin/python --resolution lowest-direct \
		--editable '.[examples,huggingface,lightning]' --group test
	$(VENV)-lowest/bin/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(VENV)-lowest digits-tuning

# --group needs pip 25.1; a new environment may hold an older one.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --progress-bar off --editable . --group test --group lint
	touch $@
