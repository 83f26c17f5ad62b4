.PHONY: setup serve check test integration conformance bench

setup:  ## the virtual environment
	python3 tools/dev.py setup

serve:  ## run the service
	python3 tools/dev.py serve

check: setup  ## fast: lint, types, unit tests
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/pytest -q tests/unit tests/test_layers.py

test:  ## everything that CI runs
	python3 tools/dev.py test

integration: setup  ## real clients against a started server
	.venv/bin/pytest -q tests/integration

conformance: setup  ## the recorded answers of the real Ollama server
	.venv/bin/pytest -q tests/golden
