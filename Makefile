# make demo   install, index SciFact, ask three questions, evaluate
# make test   lint, types, layers, tests
# make format, make bench
# make models DATA=..., make quality DATA=...   the bundled encoder from collections, and what it reaches on them
# make cross-encoder DATA=...   a cross-encoder from collections, measured on one left out; cross-encoder-gpu: a larger one
# make gpu-check   on a machine with a GPU: parity and speed there; code 5 where there is none

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: demo test lint types layers tests format bench gpu-check models cross-encoder cross-encoder-gpu quality clean

demo: $(VENV)/installed
	$(BIN)/tiercel demo

test: lint types layers tests

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

layers: $(VENV)/installed
	$(BIN)/lint-imports

tests: $(VENV)/installed
	$(BIN)/pytest -q -n 2

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed
	$(BIN)/python benchmarks/lexical.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/rerank.py
	$(BIN)/python benchmarks/uni.py
	$(BIN)/python benchmarks/maxsim.py

models: $(VENV)/installed
	rm -rf build/tiercel-minilm
	$(BIN)/python recipes/encoder.py $(DATA) build/tiercel-minilm

cross-encoder: $(VENV)/installed
	$(BIN)/python recipes/cross_encoder.py $(DATA) build/cross-encoder

cross-encoder-gpu: $(VENV)/installed
	$(BIN)/python recipes/cross_encoder.py $(DATA) build/cross-encoder-gpu --device cuda --layers 6 --vocabulary 0 \
		--queries 20000 --known-items 4000 --documents 20000 --set batch_groups=32

quality: $(VENV)/installed
	$(BIN)/python benchmarks/quality.py $(DATA)

gpu-check: $(VENV)/installed
	$(BIN)/python benchmarks/gpu.py

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tiercel needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,minilm,torch]'
	touch $@

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
