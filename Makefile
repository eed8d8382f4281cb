# lorafleet. `make` or `make help` lists what there is. Every command can be run again at any time.
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
# Python's own output and that of what it starts come in their order, in a log too.
export PYTHONUNBUFFERED := 1

CODE := lorafleet providers handlers images tools tests stacks
SETUP := $(PYTHON) -m tools.setup
IN_ENV := . ./env.sh &&

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## installs what is missing (about 15 minutes on a bare machine, a second when all is there)
	@$(SETUP)

.PHONY: up
up: setup ## sets up, then brings up the local stack and says how to talk to it
	@$(IN_ENV) exec python -m tools.stack up

.PHONY: preview
preview: setup ## shows what `make up` would change
	@$(IN_ENV) exec python -m tools.stack preview

.PHONY: down
down: setup ## destroys the local stack
	@$(IN_ENV) exec python -m tools.stack down

.PHONY: dev-setup
dev-setup:
	@$(SETUP) --dev

.PHONY: test-setup
test-setup:
	@$(SETUP) --test

.PHONY: check
check: dev-setup ## format, lint and types
	@sh -n env.sh
	@bash -n .ci/run
	@sh -n images/apt-install.sh
	@$(IN_ENV) ruff format --check $(CODE)
	@$(IN_ENV) ruff check $(CODE)
	@$(IN_ENV) mypy --strict $(CODE)

.PHONY: test
test: setup check test-setup ## everything: set-up, `make check`, unit, contract, engine and end-to-end tests
	@$(IN_ENV) python -m tools.images setup
	@$(IN_ENV) exec python -m pytest

.PHONY: bench-preview
bench-preview: setup ## `pulumi preview` of local against an empty program; ends with one JSON object
	@$(IN_ENV) exec python -m tools.bench_preview

.PHONY: bench-rollout
bench-rollout: setup ## 20 releases forward and back under load on a scratch local stack; ends with one JSON object
	@$(IN_ENV) exec python -m tools.bench_rollout

.PHONY: bench-runpod-worker
bench-runpod-worker: setup test-setup ## 50 jobs for RunPod's queue worker at concurrency 8; prints one JSON object
	@$(IN_ENV) exec python -m pytest -q -s tests/e2e/test_runpod_worker.py -k test_50_jobs

.PHONY: bench-handler
bench-handler: setup test-setup ## the Vertex handler's engines against one-by-one generation and bare vLLM; ends with one JSON object
	@$(IN_ENV) exec python -m tools.bench_handler

.PHONY: chaos
chaos: setup ## kill -9 at every call of every resource to its platform; ends with one JSON object (20 to 30 minutes)
	@$(IN_ENV) exec python -m tools.chaos $(CHAOS)
