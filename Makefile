# make run: trains on the embedded digits with 4 processes.   make test: everything that is checked.
# Needs Python 3.11 or later with pip; all else goes into .venv, which `make clean` removes.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE # what is imported is compiled once

run: .venv/run
	$(BIN)/mpirun -n 4 $(BIN)/dptrain

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile # one more than cores, as many tests wait

# what PyTorch and JAX do here; elsewhere these tests are skipped by name
test-frameworks: .venv/frameworks
	$(BIN)/pytest -n 2 --dist loadfile tests/test_torch.py tests/test_jax.py tests/test_frameworks.py

.venv/run: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[mpi,tables]'
	touch $@

.venv/test: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[mpi,test]'
	touch $@ .venv/run

.venv/frameworks: .venv/test
	$(BIN)/pip install --quiet --no-compile '$(TORCH)' --editable '.[mpi,test,jax]' # most is never imported
	touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("dptrain needs Python 3.11 or later, but $(PYTHON) is %d.%d; say make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: run test test-frameworks clean
