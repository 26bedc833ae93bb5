# make study · make test · make test-slow · make check · make lab · make bench · make faults · make report
# Each sets up what it needs in .venv. Only a Python of 3.10 or newer and make are required.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# One process a core, at most four (each may hold a model and a kernel); a file stays whole, since its fixtures are costly,
# and tests/conftest.py has the long ones begin first.
TESTS := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
.PHONY: setup weights study study-full site test test-slow check house lab bench faults report demo-cloud help
help:
	@echo "make study   a short study on the embedded default, into study/"
	@echo "make study-full  the whole study into runs/, hours; a second call goes on where the first ended"
	@echo "make site    every run as a page, into site/"
	@echo "make test    the tests, under five minutes on two cores"
	@echo "make test-slow  the others: studies, loops, clusters and trainings from end to end, killed and gone on with"
	@echo "make check   format, lint and types"
	@echo "make house   how large and how readable lib is"
	@echo "make lab     JupyterLab on notebooks/"
	@echo "make bench   speed, as ratios measured in one run, and how it grows with the number of runs"
	@echo "make faults  some 500 faults: cuts, flips, kills, full disks; a table of what was lost (nothing)"
	@echo "make report  the index notebooks of runs/ again"
	@echo "make demo-cloud  the judge by Claude against a loopback server: no key, no network"

setup: weights

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo "notch needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || echo missing). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 3; }
	@$(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < 2e9)' || { echo "notch needs 2 GB of free disk here; make room and call make again"; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv)"; exit 3; }
	@echo "setting up .venv (a few minutes, once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]" >.venv/setup.log 2>&1 || { tail -n 3 .venv/setup.log; echo "the packages could not be installed (log: .venv/setup.log). Is there a network? Call make again to go on"; exit 3; }
	@if [ "$$(uname)" = Linux ] && ! $(BIN)/python -c 'import ctypes; ctypes.CDLL("libopenblas.so.0")' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing OpenBLAS"; (apt-get update -qq && apt-get install -y -qq libopenblas0-pthread) >.venv/openblas.log 2>&1 || echo "OpenBLAS could not be installed; everything works, but 15 to 40 times slower"; \
	  else echo "no OpenBLAS: everything works, but 15 to 40 times slower. On Debian and Ubuntu: apt-get install libopenblas0-pthread"; fi; fi
	@touch $(READY)

# The public models of the embedded default: 176 MB, once for all folders of this user.
weights: $(READY)
	@$(BIN)/python -m lib.weights

study: weights
	@$(BIN)/notch study quick --runs study/runs --workers $$($(BIN)/python -c 'import os; print(min(4, os.cpu_count() or 1))')

study-full: weights
	@$(BIN)/notch study reference --workers $$($(BIN)/python -c 'import os; print(min(4, os.cpu_count() or 1))')

site: weights
	@$(BIN)/notch report --html site

test: weights
	@$(TESTS) -m "not slow"

test-slow: weights
	@$(TESTS) -m slow

check: weights
	@$(BIN)/ruff format --check -q . || { echo "run: .venv/bin/ruff format ."; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary

house: $(READY)
	@$(BIN)/python -m scripts.house

lab: weights
	@$(BIN)/jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) notebooks/00_start.ipynb

bench: weights
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench_judge
	@$(BIN)/python -m tests.bench_scale

# SEED=7 draws others.
faults: weights
	@$(BIN)/python -W ignore -m tests.faults --seed $${SEED:-0}

report: weights
	@$(BIN)/notch report

demo-cloud: $(READY)
	@$(BIN)/python -m tests.claude.loopback demo
