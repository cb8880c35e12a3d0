# `make` alone prints what there is. Every target also works by hand: the commands are one line each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# On Linux without an NVIDIA GPU, the index of small CPU builds of torch; see README.
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev study smoke mlflow test-fast test test-browser test-cluster test-server audit lock check lint format type clean

help: ## print this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt install python3-venv"; exit 1; }

# Every file is checked against its hash in the lock file; torch is not, see pyproject.toml.
LOCKED := install -q --no-deps --require-hashes -r
TORCH = "$$(grep '^torch==' requirements.txt)" $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)")

$(VENV)/.installed: requirements.lock | $(BIN)/python
	@echo "installing requirements.lock and torch into $(VENV) (some minutes)"
	@$(PIP) $(LOCKED) requirements.lock
	@$(PIP) install -q $(TORCH)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@$(PIP) $(LOCKED) requirements-dev.lock
	@touch $@

# Ray's launcher and its agents, in an environment that sees the packages of the other: with them
# every Ray of the tests would start more slowly.
$(VENV)/cluster/.installed: $(VENV)/.installed-dev
	@$(BIN)/python -m venv $(VENV)/cluster
	@$(BIN)/python -c "import sysconfig as s; print(s.get_path('purelib'))" \
	  > "$$($(VENV)/cluster/bin/python -c "import sysconfig as s; print(s.get_path('purelib'))")/study.pth"
	@$(VENV)/cluster/bin/python -m pip --disable-pip-version-check install -q \
	  "$$(grep '^ray' requirements.txt | sed 's/tune/default/')"
	@touch $@

setup: $(VENV)/.installed ## make .venv and install what a study needs
setup-dev: $(VENV)/.installed-dev ## and what the tests need

study: setup ## run the demo study on simulated birds; make study ARGS="--data DIR --preset smoke"
	$(BIN)/python study/run_tune.py $(ARGS)

smoke: setup ## does everything work? under 3 minutes
	$(BIN)/python study/run_tune.py --preset smoke $(ARGS)

mlflow: setup ## show all studies at http://127.0.0.1:5000
	mlflow/serve.sh

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup-dev ## the tests to run while working: no Ray, no MLflow, none that is slow
	$(PYTEST) -m "not slow" tests/unit tests/rules $(ARGS)

test: test-fast ## those first, then the slow ones and those that start Ray or MLflow
	$(PYTEST) -m "slow or (integration and not browser)" tests/unit tests/rules tests/integration $(ARGS)

test-browser: setup-dev ## MLflow's page in a browser; Chromium must be installed
	$(BIN)/python -m pytest -m browser -rs tests/integration $(ARGS)

test-cluster: $(VENV)/cluster/.installed ## three machines in namespaces, one is lost: some minutes, root
	$(VENV)/cluster/bin/python -m pytest -m cluster -rs --durations=12 tests/cluster $(ARGS)

test-server: setup-dev ## the laboratory's MLflow server, without Docker: some minutes
	$(BIN)/python -m pytest -m server -rs tests/server $(ARGS)

audit: setup-dev ## known holes in the packages; asks pypi.org
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-dev.lock -r requirements.lock
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r requirements.txt

lock: setup-dev ## after a change of requirements*.txt: the lock files again; asks pypi.org
	$(BIN)/uv pip compile -q $(ARGS) requirements.txt -o requirements.lock
	$(BIN)/uv pip compile -q $(ARGS) requirements-dev.txt -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile -q $(ARGS) mlflow/requirements.txt -c requirements-dev.lock -o mlflow/requirements.lock

lint: setup-dev ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup-dev ## mypy
	$(BIN)/mypy

check: lint type test ## what must be clean before a change is kept

format: setup-dev ## let ruff write the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches; runs/ and mlflow/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
