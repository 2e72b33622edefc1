# Everything runs in .venv beside this file, made from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test test-newest check audit format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/danlu train recipes/digits.yaml --run runs/demo
	$(BIN)/danlu evaluate runs/demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

# The whole suite on the newest versions that pyproject.toml allows, in an environment of its own.
test-newest:
	$(PYTHON) -m venv --clear $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e ".[dev]"
	$(VENV)-newest/bin/python -m pip list --disable-pip-version-check
	$(VENV)-newest/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python  # else pyright asks whichever python is first on the PATH
	$(BIN)/python -m pytest -q tests/test_floors.py tests/test_names.py

# Ranges, pins, licences and known advisories of the dependencies; needs no network.
audit: setup
	$(BIN)/python audit/dependencies.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-newest build dist src/*.egg-info
