# Everything runs in .venv, made on first use from pinned versions. PYTHON picks the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs dist faults detection-env test-detection lint format clean

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
	if [ -e .venv-detection/.done ]; then $(MAKE) test-detection; fi

docs: .venv/.done  ## docs/reference out of the code, then the site in site/
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: .venv/.done  ## sdist and wheel of the commit, and both tried in an environment of PYTHON's
	$(BIN)/python tests/smoke.py build dist
	$(BIN)/python tests/smoke.py try dist --python $(PYTHON)

faults: .venv/.done  ## the faults of docs/reliability.md, each as often as it says there
	OMP_NUM_THREADS=1 DOS_FAULTS=full $(BIN)/python -m pytest -n 2 -q tests/faults

# MMDetection3D, and what OpenPCDet imports, in an environment that sees the packages of .venv behind its own
.venv-detection/.done: .venv/.done requirements-detection.txt
	$(PYTHON) -m venv --clear --without-pip .venv-detection
	echo '*' > .venv-detection/.gitignore
	$(BIN)/python -c "import sysconfig as s; print('import site; site.addsitedir(%r)' % s.get_path('purelib'))" \
		> "$$(.venv-detection/bin/python -c "import sysconfig as s; print(s.get_path('purelib'))")/others.pth"
	$(BIN)/pip --python .venv-detection/bin/python install --quiet --no-deps -r requirements-detection.txt
	touch $@

detection-env: .venv-detection/.done  ## docs/detection.md

test-detection: .venv-detection/.done
	OMP_NUM_THREADS=1 .venv-detection/bin/python -m pytest -n 2 --dist loadfile \
		tests/unit/test_detection_results.py tests/integration/test_detection_*.py tests/integration/test_mmdet3d*.py
	OMP_NUM_THREADS=1 .venv-detection/bin/python -m pytest tests/integration/test_openpcdet.py  # fills in for CUDA

lint: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-detection build dist *.egg-info
