# One place for every command; CI and the git hooks call the same targets.
VENV   := .venv
PY     := $(VENV)/bin/python
TYPES  := build/types
FOLDERS := adapters clients compose server

.PHONY: install lint types test bench demo clean

# Type checkers and import-linter do not follow the editable import hook: give them the tree under its import names.
$(TYPES): Makefile
	@mkdir -p $(TYPES)/loraloom
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder $(TYPES)/loraloom/$$folder; done
	@ln -sfn ../../../deploy/demo $(TYPES)/loraloom/demo

lint: $(TYPES)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYTHONPATH=$(TYPES) $(VENV)/bin/lint-imports

types: $(TYPES)
	MYPYPATH=$(TYPES) $(VENV)/bin/mypy -p loraloom
