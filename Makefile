# Every target sets up what it needs first; `make setup` is quick when nothing is to do.
VENV ?= .venv
PY := $(VENV)/bin/python
export VENV
CODE := $(wildcard include dags plugins dev benchmarks)

.PHONY: help setup demo chaos up down bench test mutate-guards check format-check lint imports types lock-check fmt lock
.DEFAULT_GOAL := help

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the virtual environment, the locked packages, prometheus and postgresql
	@dev/bootstrap.sh

demo: setup ## break GPUs in a simulated fleet and watch each node's way back to service
	@$(PY) -m dev.demo

chaos: setup ## kill parts of the stack at random for a quarter of an hour, and see that no rule breaks; writes docs/chaos.md
	@$(PY) -m dev.chaos --write docs/chaos.md

up: setup ## the same fleet, left running for you to look at and to answer approvals
	@$(PY) -m dev.stack up

down: setup ## end what `make up` started
	@$(PY) -m dev.stack down

bench: setup ## measure the speed at 80,000 GPUs, ten minutes; writes docs/speed.md
	@PYTHONPATH=include:. $(PY) -m benchmarks

test: setup ## all tests
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

mutate-guards: setup ## take every guard away, one at a time, and see which rule of the fleet machine notices
	@PYTHONPATH=include:. $(PY) -m dev.mutate_guards

check: format-check lint imports types lock-check test ## everything that must hold before a merge

format-check: setup
	$(PY) -m ruff format --check .

lint: setup
	$(PY) -m ruff check .

imports: setup
	$(VENV)/bin/lint-imports

types: setup
	$(PY) -m mypy $(CODE)

lock-check: setup
	$(PY) -m dev.lock --check

fmt: setup ## format, and fix what can be fixed safely
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lock: setup ## make requirements.txt anew from pyproject.toml
	$(PY) -m dev.lock
