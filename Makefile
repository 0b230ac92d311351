# Meter Data Hub. `make help` lists what there is to do. Needs Python 3.11 or 3.12 and make; everything else comes by itself.

VENV ?= .venv
PORT ?= 8080
DATA ?= .mdh
ARGS ?=
BENCH ?= pipeline
EXIT ?=

PY := $(VENV)/bin/python
MDH := $(VENV)/bin/mdh
PIP := $(PY) -m pip --disable-pip-version-check --no-input -q
UV := $(shell command -v uv 2>/dev/null)
STAMP := $(VENV)/.stamp

# Dozens of processes start from the same modules: they are compiled once, also where the environment would have it otherwise.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo up test test-long lint format bench docs pictures lock lock-kafka clean

help: ## Show what there is to do
	@echo "Meter Data Hub: make TARGET"
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)-kafka $(STAMP)-kernels ## Set everything up: environment, locked dependencies, broker jars; leaves .venv/bin/mdh

demo: install ## Run the hub on a real estate and tell what happened (EXIT=1: stop after the story)
	@exec $(MDH) demo --data-dir $(DATA) $(if $(EXIT),--exit) $(ARGS)

up: install ## Run the hub until interrupted (PORT=8080 DATA=.mdh)
	@exec $(MDH) up --data-dir $(DATA) --port $(PORT) $(ARGS)

test: install ## Run all tests, long ones first (ARGS='-m "not torment"' leaves out the longest)
	@exec $(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: install ## Run all tests with new and ten times as many examples, and a long torment (an hour or more)
	@MDH_TEST_EXAMPLES=10 MDH_TORMENT_ACTIONS=60 MDH_TORMENT_METERS=300 MDH_TORMENT_SEED=$$(date +%s) \
	  $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --timeout 7200 $(ARGS)

lint: install ## Check style, formatting, types
	@$(VENV)/bin/ruff check . || { echo "make lint: mend the above, or try '$(VENV)/bin/ruff check --fix .'" >&2; exit 1; }
	@$(VENV)/bin/ruff format --check . || { echo "make lint: 'make format' does it" >&2; exit 1; }
	@$(VENV)/bin/mypy || { echo "make lint: the types above do not fit" >&2; exit 1; }

format: install ## Format the code
	@$(VENV)/bin/ruff format .

bench: install ## Measure (BENCH=pipeline)
	@exec $(MDH) bench $(BENCH) $(ARGS)

docs: install ## Write the generated pages anew: topics, settings, AsyncAPI, metrics, OpenAPI, rules, pictures
	@$(MDH) topology show --docs > docs/topics.md
	@$(MDH) topology show --asyncapi > docs/asyncapi.yaml
	@$(MDH) topology show --reference > docs/topology-reference.md
	@$(MDH) schemas metrics > docs/metrics.md
	@$(MDH) hub --openapi > docs/openapi.json
	@$(PY) -m mdh.docs_rules docs/rules
	@$(PY) -m mdh.docs_usage docs/usage
	@if [ -n "$(CHROMIUM)" ] || command -v chromium >/dev/null; then $(PY) -m tests.console.pictures docs/img; \
	else echo "no Chromium (CHROMIUM=/path): the pictures of the console stay as they are" >&2; fi
	@echo "wrote docs/topics.md docs/topology-reference.md docs/asyncapi.yaml docs/metrics.md docs/openapi.json docs/rules docs/usage"

pictures: install ## Draw the screens of the console anew (needs Chromium; CHROMIUM=/path)
	@$(PY) -m tests.console.pictures docs/img

lock: install ## Resolve the dependencies anew into requirements.lock
	@command -v uv >/dev/null || $(PIP) install uv
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock
	@echo "wrote requirements.lock"

lock-kafka: install ## Resolve Apache Kafka anew into its lock file (KAFKA=4.x.y)
	@test -n "$(KAFKA)" || { echo "make lock-kafka: name the version: make lock-kafka KAFKA=4.x.y" >&2; exit 2; }
	@$(PY) -m connectors.embedded lock $(KAFKA)

clean: ## Remove the environment and what tools left (data directories stay)
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What install is made of. Each step leaves a stamp and is done again only when what it depends on changes.

$(STAMP)-venv:
	@for python in $(PYTHON) python3.11 python3.12 python3 python; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "make install: no Python 3.11 or 3.12 found; install one, or name it: make install PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "environment: $$($$found --version 2>&1) in $(VENV)"; \
	$$found -m venv $(VENV) || { \
	  echo "make install: cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(STAMP)-requirements: requirements.lock | $(STAMP)-venv
	@echo "dependencies: installing what requirements.lock names (once, a few minutes)"
	@$(if $(UV),$(UV) pip install --quiet --python $(PY),$(PIP) install) --require-hashes -r requirements.lock || { \
	  echo "make install: the dependencies could not be installed: check the network and the space on disk, then run it again" >&2; exit 1; }
	@touch $@

$(STAMP)-project: pyproject.toml $(STAMP)-requirements
	@$(PIP) install --no-deps --no-build-isolation -e . || { \
	  echo "make install: the project could not be installed: 'make clean install' starts afresh" >&2; exit 1; }
	@touch $@

$(STAMP)-kafka: connectors/embedded/kafka.lock.json $(STAMP)-project
	@$(PY) -m connectors.embedded || { echo "make install: the broker is not ready; the line above says why" >&2; exit 1; }
	@touch $@

KERNELS := $(shell grep -rl --include='*.py' numba connectors streams 2>/dev/null)

$(STAMP)-kernels: $(KERNELS) $(STAMP)-project
	@echo "compiling the numeric kernels (once, half a minute)"
	@$(PY) -m mdh.kernels || { echo "make install: the kernels did not compile; the line above says why" >&2; exit 1; }
	@touch $@
	@echo "ready: $(MDH)"
