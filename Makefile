# Every target works by itself: what it needs and is not there yet, it makes first.
SHELL := /bin/bash
# The interpreter that makes .venv; deploy/venv.sh chooses one when this is empty. A .venv that is
# there is kept: remove it to change the interpreter.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help up down restart manage shell migrate ps logs env demo seed ledger load bench chaos test test-fast coverage check schema postman screenshots format lock clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | sed 's/[$$][$$]/$$/g' | expand -t 20

up: $(VENV)/.complete ## Bring the whole system up on ports 3001 and 3002 and wait until it is ready
	@$(BIN)/python -m deploy up

down: $(VENV)/.complete ## Stop it; the data stays
	@$(BIN)/python -m deploy down

restart: down ## Stop it, and bring it up again
	@$(MAKE) --no-print-directory up

manage: $(VENV)/.complete ## Run a command of Django's: make manage S=orders C="showmigrations"
	@$(BIN)/python -m deploy manage $(S) $(C)

shell: $(VENV)/.complete ## Open Django's shell of a service: make shell S=orders
	@$(BIN)/python -m deploy manage $(S) shell

migrate: $(VENV)/.complete ## Migrate both databases
	@$(BIN)/python -m deploy manage products migrate
	@$(BIN)/python -m deploy manage orders migrate

ps: $(VENV)/.complete ## Show what runs
	@$(BIN)/python -m deploy ps

logs: $(VENV)/.complete ## Show what the processes say (NAMES="order-service …", FOLLOW=0)
	@$(BIN)/python -m deploy logs $(NAMES)

env: $(VENV)/.complete ## Print the addresses in use: eval "$$(make env)"
	@$(BIN)/python -m deploy env

demo: $(VENV)/.complete ## Create a product, order it, and watch what becomes of both
	@$(BIN)/python -m deploy run -- $(BIN)/python -m tools.demo

seed: $(VENV)/.complete ## Fill the shop: eight products, and an hour of orders
	@$(BIN)/python -m deploy run -- $(BIN)/python -m tools.busy_shop

ledger: $(VENV)/.complete ## Check the books of both services against each other; starts nothing
	@$(BIN)/python -m deploy run --as-is -- $(BIN)/python -m tools.ledger $(ARGS)

load: $(VENV)/.complete ## 1,000 orders a second for a minute with k6, what they cost, then the ledger
	@$(BIN)/python -m deploy run -- $(BIN)/python -m tools.load

bench: $(VENV)/.complete ## Measure a system of its own beside a bare Django view (SECONDS=15 RATES="100 300")
	@$(BIN)/python -m tools.bench $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RATES),--rates $(RATES))

chaos: $(VENV)/.complete ## Break a system of its own under load, part by part, and compare all books (FAULT= SEED= SECONDS= RATE= MINUTES=)
	@$(BIN)/python -m tools.chaos $(if $(FAULT),--faults $(FAULT)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RATE),--rate $(RATE)) \
	  $(if $(MINUTES)$(LONG),--minutes $(or $(MINUTES),60))

test: $(VENV)/.complete ## Run every test on real servers of its own (ARGS="-k name")
	@$(BIN)/python -m deploy.test $(ARGS)

# These need no server. Whatever asks for one finds none there, and fails.
FAST_products := deploy/test_interpreter deploy/test_looking deploy/test_settings \
  products/test_reservations servicekit/test_admission \
  servicekit/test_contracts servicekit/test_known_keys servicekit/test_logs \
  servicekit/test_request_id servicekit/test_telemetry servicekit/test_correlation \
  tools/test_check_coverage tools/test_migrations
FAST_orders := orders/test_group_commit orders/test_order_api_document

test-fast: $(VENV)/.complete ## Run decisions, contracts and what else needs no server, in seconds
	@NO_SERVERS=1 $(BIN)/pytest -q $(FAST_products:%=tests/%.py) $(ARGS)
	@NO_SERVERS=1 $(BIN)/pytest -q $(FAST_orders:%=tests/%.py) $(ARGS)

coverage: $(VENV)/.complete ## Run the tests of each service with coverage, and fail where none reaches a way back from a failure
	@rm -rf .run/coverage
	@COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/python -m deploy.test \
	  --deselect=tests/deploy --deselect=tests/tools --deselect=tests/system \
	  --deselect=tests/interop $(ARGS)
	@$(BIN)/python -m tools.check_coverage

check: $(VENV)/.complete ## Run everything that needs no server: format, lint, layers, types, settings
	@deploy/check.sh

schema: $(VENV)/.complete ## Write docs/openapi/*.yaml and docs/asyncapi/*.yaml anew, from the code
	@$(BIN)/python -m tools.openapi
	@$(BIN)/python -m tools.asyncapi

postman: $(VENV)/.complete ## Write the Postman collection anew, from docs/openapi
	@$(BIN)/python -m tools.postman

screenshots: $(VENV)/.complete ## Take the pictures in docs/images anew, from a system of their own
	@$(BIN)/python -m tools.screenshots

format: $(VENV)/.complete ## Format the code and mend what the linter can
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

lock: $(VENV)/.complete ## Pin requirements/*.in anew, with hashes (needs uv)
	@requirements/lock.sh

clean: $(VENV)/.complete ## Stop it and throw its data away, after asking (FORCE=1: unasked), and the virtual environment with it
	@$(BIN)/python -m deploy clean
	@rm -rf $(VENV) .run .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Whatever it prints goes to stderr, so that the first `make env` can be evaluated too.
$(VENV)/.complete: requirements/dev.txt
	@PYTHON="$(PYTHON)" LOOK_AT_PORTS="$(if $(wildcard .env),,$(filter up,$(MAKECMDGOALS)))" deploy/venv.sh $(VENV) >&2
