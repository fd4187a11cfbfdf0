# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base-installed
DEV := $(VENV)/.dev-installed
VERL := .venv-verl/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests wait for processes and servers about a third of the time, so one more than there are cores run at once.
WORKERS ?= $(shell $(BIN)/python -c "import os; print(min(4, (os.cpu_count() or 1) + 1))" 2>/dev/null || echo 3)
BROWSERS := chromium chromium-browser google-chrome

.PHONY: demo train-demo test test-slow lint format docs browser verl clean

demo: $(BASE)
	@$(BIN)/python run_eval.py

# Trains a small model on a CPU, three seeds with controls; the curves and figures go to reports/train_demo/.
train-demo: $(DEV)
	$(BIN)/python examples/train_demo.py

test: $(DEV) browser
	@$(BIN)/python -m compileall -q knowgen  # once, not in each of the processes that tests start
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(DEV) browser $(VERL)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/check_words.py

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed; name it: make PYTHON=/path/to/python3" >&2; exit 4; }
	@echo "Setting up $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml | $(BIN)/python
	@echo "Installing knowgen (once; a minute or two) ..."
	@$(PIP) --editable .
	@touch $@

$(DEV): pyproject.toml $(BASE)
	@echo "Installing what the tests need (once) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

# The page is tested in a real browser. Debian's package is installed where that is possible; elsewhere those tests
# say that they were skipped (in CI they fail instead).
browser:
	@if ! command -v $(BROWSERS) >/dev/null 2>&1 && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium for the page tests (once) ..."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	fi

# verl needs an older transformers. Its environment has those packages that differ, and finds all others in $(VENV).
verl: $(VERL)

$(VERL): pyproject.toml $(DEV)
	@echo "Installing verl in .venv-verl (once; two minutes) ..."
	@rm -rf .venv-verl
	@$(BIN)/python -m venv .venv-verl
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> "$$(.venv-verl/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_development.pth"
	@.venv-verl/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[verl]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-verl build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
