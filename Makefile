PYTHON ?= python3

BIN := .venv/bin
CONSTRAINTS := constraints.txt constraints-keras.txt
PIP := -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=--constraint %)
INSTALLED := .venv/.installed
KERAS_BIN := .venv-keras/bin
KERAS_INSTALLED := .venv-keras/.installed

.PHONY: demo test test-slow test-keras check bench docs clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# `make test` runs these on PyTorch; a process has one backend. The examples, which are slow, are among them here.
test-keras: $(KERAS_INSTALLED)
	KERAS_BACKEND=tensorflow $(KERAS_BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "" tests/keras
	KERAS_BACKEND=jax $(KERAS_BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "" tests/keras

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

docs: $(INSTALLED)
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf .venv .venv-keras build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# torch goes first and by itself, so that nothing else decides which build of it is taken.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) torch==2.13.0
	$(BIN)/python $(PIP) --editable '.[plots,datasets,tracking,onnx,keras,development]'
	touch $@

$(KERAS_INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv-keras
	$(KERAS_BIN)/python $(PIP) torch==2.13.0
	$(KERAS_BIN)/python $(PIP) --editable '.[tensorflow,jax,development]'
	touch $@
