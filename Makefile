# Everything runs in .venv, made on first use from pinned versions. PYTHON picks the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format clean

.venv/.done: setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/pip install --quiet -c constraints.txt torch numpy
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[demo,dev]'
	touch $@

demo: .venv/.done  ## pretrain on synthetic streets, probe, report: exp/dos/demo/report
	$(BIN)/dos-plugin demo

test: .venv/.done lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info
