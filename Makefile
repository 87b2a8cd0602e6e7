# `make demo`: see it work. `make test`: every test. `make check`: lint and types. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test coverage mutation chaos check bench peers dashboard schema wheel wheel-demo clean mosquitto ejabberd chromium npm homeassistant

demo: $(VENV)/.run
	$(BIN)/s2m3 demo

# Tests mostly wait (for processes to start, for a node to be missed): four at a time fill two cores.
# `make test JOBS=0` runs them one after the other. Some 500 processes are started: what Python compiled is
# kept, and none computes on all cores.
JOBS ?= 4
test: export PYTHONDONTWRITEBYTECODE =
test: export OMP_NUM_THREADS = 1
test: export OPENBLAS_NUM_THREADS = 1
test: $(VENV)/.dev mosquitto chromium dashboard check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder

# Lines and branches that the tests without clusters reach, by file, and in build/coverage as pages. `make test` does not
# measure them: most of its time passes in processes of their own.
coverage: $(VENV)/.dev mosquitto
	$(BIN)/python -m pytest -q -n $(JOBS) --cov --cov-report=term --cov-report=html:build/coverage $(IN_PROCESS)
IN_PROCESS := tests/agents tests/bindings tests/broker tests/planner tests/planner_service tests/schemas

# How many changes of the pure modules the fast tests notice: at least 90 %, else it fails. A tenth of them is drawn, more
# than half an hour on two free cores; `ARGS="--share 1"` takes all 17,800, in hours (--resume goes on with a run
# that was ended, and takes what a smaller share has shown). `ARGS="--share 0.05 s2m3.broker.*"` takes a twentieth of some
# modules' mutants, --show prints survivors.
mutation: $(VENV)/.dev
	$(BIN)/python bench/mutation.py $(ARGS)

# The long form: what takes minutes, and on both brokers what `make test` shows on one of the two (`short_on`).
# `make chaos ARGS="--seed 7 -k nodes_die"` replays a run.
chaos: $(VENV)/.dev mosquitto ejabberd
	$(BIN)/python -m pytest tests/chaos --long $(ARGS)
	$(BIN)/python -m pytest tests --ignore tests/chaos --long -m "long or short_on" $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The benchmarks of README's figures, one after the other, and a page of what they found: build/bench.html. `make bench
# ARGS="--only bus"`. Half an hour on an idle machine, and as long again for the peers where they are installed: `make peers`.
bench: $(VENV)/.dev
	$(BIN)/python bench/report.py $(ARGS)

# What bench/peers.py measures S2M3 against (860 MB), in a folder of its own.
peers: $(VENV)/.dev
	$(PIP) install --target .peers -c deploy/constraints.txt -r bench/peers-requirements.txt

# Debian keeps venv in a package of its own: virtualenv from pip does the same.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m pip install -q --user virtualenv --break-system-packages \
	  && $(PYTHON) -m virtualenv -q $(VENV); }

# torch comes by itself, before what needs it: `s2m3.torch_build` says which build it takes, for the CPU where no NVIDIA
# device is. TORCH_INDEX and TORCH_BUILD decide otherwise: see s2m3/torch_build.py. The shipped modules are exported once
# (40 s, into the user's cache): ONNX Runtime takes 0.4 to 0.9 of torch's time for them (docs/light.md).
$(VENV)/.run: pyproject.toml setup.py deploy/constraints.txt deploy/weights.txt | $(BIN)/python
	$(PIP) install -c deploy/constraints.txt -e '.[broker,bridge]'
	$(BIN)/python -m s2m3.torch_build
	$(PIP) install -c deploy/constraints.txt -e '.[agent,broker,bridge,export]'
	$(BIN)/s2m3 weights --light
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -c deploy/constraints.txt -e '.[agent,broker,bridge,diffusion,draw,exact,export,int8,owlv2,plot,secure,serve,traces,wyoming,dev]'
	touch $@

# The JSON Schemas of all documents, into docs/schema: committed, and a test fails when they are out of date.
schema: $(VENV)/.run
	$(BIN)/python -m s2m3.schemas.json_schema docs/schema

# The page, into s2m3/page. What npm brings is locked, and none of it is committed.
PAGE := s2m3/page/index.html
dashboard: npm
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(PAGE); fi

$(PAGE): dashboard/node_modules $(wildcard docs/schema/*.json dashboard/src/*.ts* dashboard/src/styles/* dashboard/src/texts/* dashboard/*.html dashboard/*.svg dashboard/*.webmanifest dashboard/*.mjs)
	cd dashboard && npm run --silent check && npm run --silent build

dashboard/node_modules: dashboard/package.json dashboard/package-lock.json
	cd dashboard && npm ci --silent --ignore-scripts
	touch $@

# The source archive, and the wheel made from it, into dist/. Both hold the page, or are not made (setup.py).
wheel: dashboard | $(BIN)/python
	$(PIP) install -c deploy/constraints.txt build
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# The wheel alone, in a new environment and an empty folder, with everything from the registry: all answers are right.
WHEEL_DEMO := set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; wheel=$$(echo "$$PWD"/dist/s2m3-*.whl); \
  mkdir "$$folder/empty"; cd "$$folder/empty"; $(PYTHON) -m venv "$$folder/venv"; export PATH="$$folder/venv/bin:$$PATH"; \
  unset PYTHONPATH; export PIP_DISABLE_PIP_VERSION_CHECK=1; \
  pip install -q "$$wheel"; python -m s2m3.torch_build; pip install -q "s2m3[agent,broker]"; s2m3 weights && s2m3 demo
wheel-demo: wheel
	$(WHEEL_DEMO)

# $(call apt,command,its packages,what is missing without it): installs them where we may.
define apt
@command -v $(1) >/dev/null || [ -x /usr/sbin/$(1) ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
  && { apt-get install -y -qq $(2) || { apt-get update -qq && apt-get install -y -qq $(2); }; } >/dev/null; } \
  || echo "$(1) is not installed: $(3) (Debian: apt install $(2))"
endef

# The tests run on Mosquitto and on the embedded broker; without Mosquitto (and without apt) half of them are skipped.
mosquitto:
	$(call apt,mosquitto,mosquitto mosquitto-clients,its half of the tests will be skipped)
	$(call apt,ffmpeg,ffmpeg,the test of the documented formats will be skipped)
	$(call apt,espeak-ng,espeak-ng,the tests with German speech will be skipped)

# For the long tests of clustered brokers (tests/clustered).
ejabberd:
	$(call apt,ejabberdctl,ejabberd,the tests of clustered brokers will be skipped)

chromium:
	$(call apt,chromium,chromium,the tests of the page will be skipped)

npm:
	$(call apt,npm,nodejs npm,the page is not built)

# Home Assistant's own core, for the tests that ask it itself (tests/homeassistant); it needs Python 3.13.
HASS_PYTHON ?= python3.13
homeassistant: .hass/bin/hass
.hass/bin/hass:
	$(HASS_PYTHON) -m venv .hass
	.hass/bin/python -m pip install -q homeassistant==2025.4.4 home-assistant-frontend==20250411.0 paho-mqtt==2.1.0 ollama==0.4.7 \
	  wyoming==1.5.4 pymicro-vad==1.0.1 pyspeex-noise==1.0.2 hassil==2.2.3 home-assistant-intents==2025.3.28 \
	  ha-ffmpeg==3.2.2 mutagen==1.47.0 zeroconf==0.146.0

clean:
	rm -rf $(VENV) .hass .peers s2m3/page dashboard/node_modules dashboard/src/generated build dist mutants .coverage *.egg-info \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis
