# The commands of this repository. None needs another to have been run before it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.complete

.DEFAULT_GOAL := help
.PHONY: up down ps logs env demo test check ledger load clean help
.SUFFIXES:

## Run

up: $(READY)  ## Bring the whole system up on ports 3001 and 3002, in the background
	@$(BIN)/python -m deploy up

down: $(READY)  ## Stop everything; the data stays
	@$(BIN)/python -m deploy down

ps: $(READY)  ## Show every process: state, process id, uptime, address
	@$(BIN)/python -m deploy ps

logs: $(READY)  ## Follow what the processes say (FOLLOW=0: only the end)
	@$(BIN)/python -m deploy logs

env: $(READY)  ## Print the addresses in use: eval "$$(make -s env)"
	@$(BIN)/python -m deploy env

clean: $(READY)  ## Stop everything and throw its data away
	@$(BIN)/python -m deploy clean

## Use

demo: $(READY)  ## Place some orders and show what becomes of them
	@$(BIN)/python -m deploy run -- python -m deploy.demo

ledger: $(READY)  ## Check both databases against each other: nothing lost, nothing doubled
	@$(BIN)/python -m deploy run -- python -m deploy.ledger $(ARGS)

load: $(READY)  ## 1,000 orders a second for a minute, with k6 (ARGS: k6's own options)
	@$(BIN)/python -m deploy run -- python -m deploy.load $(ARGS)

## Work

test: $(READY)  ## Run all tests on servers of their own (ARGS: pytest's own options)
	@$(BIN)/python -m deploy.test $(ARGS)

check: $(READY)  ## Format, lint, types, layers, migrations, compose file
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh deploy/check.sh

help:  ## Show this
	@awk 'BEGIN { FS = ":.*?## " } \
	  /^## / { printf "\n%s\n", substr($$0, 4) } \
	  /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST)) \
	  | sed 's/[$$][$$]/$$/g'

# All chatter goes to standard error: `make env` is read by a shell.
$(READY): requirements/dev.txt
	@sh deploy/venv.sh "$(PYTHON)" $(VENV) requirements/dev.txt >&2
