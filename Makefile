# Everything installs into .venv by itself; ARGS="..." passes options on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: install demo test check crash-test kafka-test chaos mutants bench settings lock clean

install: $(READY)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "streamapp needs Python 3.11 or later; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)
	@$(BIN)/streamapp demo $(ARGS)

# Fast tests: no root, no Docker, no Java.
test: $(READY)
	$(BIN)/python -m pytest tests --ignore=tests/kafka --ignore=tests/crash --ignore=tests/faults $(ARGS)

# Kills at every crash point, and faults of database, services, disk and clock; no Java.
crash-test: $(READY)
	STREAMAPP_TEST_CRASH=all $(BIN)/python -m pytest tests/crash tests/faults $(ARGS)

# Tests on Apache Kafka itself; needs Java 17 and Maven.
kafka-test: $(READY)
	$(BIN)/python -m pytest tests/kafka $(ARGS)

# Breaks everything at random and counts what was lost; needs Java 17 and Maven.
chaos: $(READY)
	@$(BIN)/python -m tests.chaos $(ARGS)

# Breaks the code on purpose, patch by patch, and shows that the named tests notice.
mutants: $(READY)
	@$(BIN)/python -m tests.mutants $(ARGS)

# streamapp beside other ways to do the same work; needs Java 17 and Maven.
bench: $(READY)
	@$(BIN)/python -m benchmarks $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/loyalty/src examples/loyalty/tests

# docs/settings.md is made from the code.
settings: $(READY)
	$(BIN)/python -m streamapp.settings > docs/settings.md

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
