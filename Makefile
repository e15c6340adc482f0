# The commands of CONTRIBUTING.md. `make` alone lists them. Nothing depends on this file: each target is one command or two.

PYTHON ?= python3.13
BIN := .venv/bin
COMPOSE ?= $(shell command -v docker-compose || echo docker compose)
TEST ?= test_objgw.py
NAME ?=

.PHONY: help run stop logs unit stack test lint format bench soak

help: ## list the targets
	@sed -nE 's/^([a-z.]+):.*## (.*)/  make \1	\2/p' Makefile | expand -t 16

run: ## start the gateway and three nodes, at http://127.0.0.1:3000
	$(COMPOSE) up -d --build

stop: ## stop them; the objects stay
	$(COMPOSE) down

logs: ## what the gateway logs
	$(COMPOSE) logs -f gateway-container

.venv: requirements.txt requirements-otel.txt requirements-dev.txt ## make the virtual environment, with what tests and linters need
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements-dev.txt
	touch .venv

unit: .venv ## the tests that need no containers, within a minute
	$(BIN)/pytest -n auto tests/unit

stack: ## one file of tests with containers: make stack TEST=test_objgw.py NAME=some_words
	$(COMPOSE) build -q tests
	$(COMPOSE) run --rm tests pytest $(TEST) $(if $(NAME),-k "$(NAME)")

test: ## all tests, in containers
	$(COMPOSE) build tests
	$(COMPOSE) run --rm tests

lint: .venv ## the linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy .

format: .venv ## format the code
	$(BIN)/ruff format .

bench: ## the benchmark, the short one: 3 minutes, as root
	bench/run.py --quick

soak: ## reads and writes against a model while everything fails in turn; 5 minutes, as root
	bench/soak.py --minutes 5
