# Everything a newcomer needs: `make run` and `make test` do all the set-up.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CONFIG ?= configs/japanese_vowels_cfc.yaml
COMPOSE ?= docker compose --file monitoring/compose.yaml

.DEFAULT_GOAL := help
.PHONY: help venv run test test-slow lint rules notebooks dashboards stack stack-down screenshots failures overhead soak bench check-wheel clean

help: ## List what make can do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

venv: .venv/.venv ## Make the environment only, to choose the torch build yourself

run: .venv/.run ## Set up if needed, train a CfC with telemetry, say where to look
	$(BIN)/liquid-train fit --config $(CONFIG)

test: .venv/.test lint ## Set up if needed, then lint, type-check and run the tests
	$(BIN)/pytest

test-slow: .venv/.test ## Run the tests that make test leaves out (fifteen minutes)
	$(BIN)/pytest -m slow

lint: .venv/.test ## Format check, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

rules: ## Check and test alert rules and Alertmanager routes (needs promtool and amtool)
	promtool check config monitoring/prometheus/prometheus.yml
	promtool test rules monitoring/prometheus/tests/*.yml
	amtool check-config monitoring/alertmanager/alertmanager.yml

dashboards: .venv/.test ## Make the Grafana dashboards and the list of their panels from the catalogue (Python 3.11)
	$(BIN)/python -m monitoring.grafana.generate

screenshots: .venv/.test ## Take the pictures of the live page for the documents (needs chromium; two minutes)
	PYTHONPATH=tests $(BIN)/python -m screenshots

stack: monitoring/.env ## Start Prometheus, Alertmanager, Grafana, Jaeger, Loki and a collector (needs Docker Compose)
	@mkdir -p runs
	$(COMPOSE) up --detach --wait
	@echo "Grafana: http://127.0.0.1:3000, user admin, password in monitoring/.env; the rest: docs/stack.md"

stack-down: ## Stop them; what they have stored stays
	$(COMPOSE) down

notebooks: .venv/.test ## Execute the notebooks anew and keep what they show (ten minutes)
	PYTHONPATH=tests $(BIN)/python -m notebooks.execute

failures: .venv/.test ## Fail in every way beside Prometheus and Alertmanager, print what was seen (seven minutes)
	PYTHONPATH=tests $(BIN)/python -m failures

overhead: .venv/.test ## Measure what observing costs, beside other ways (nine minutes)
	$(BIN)/python -m benchmarks.telemetry

soak: .venv/.test ## Watch 200,000 batches under scrapes: is anything growing? (three minutes)
	$(BIN)/python -m benchmarks.soak

bench: .venv/.test ## Measure CfC and LTC beside ncps, LSTM and GRU (two minutes)
	$(BIN)/python -m benchmarks.nn

check-wheel: .venv/.test ## Build the wheel, train one epoch from it in an empty venv
	PYTHON=$(PYTHON) .ci/check-wheel

clean: ## Remove the environment and caches; run directories stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

monitoring/.env:
	@umask 077; $(PYTHON) -c 'import secrets; print("GRAFANA_ADMIN_PASSWORD=" + secrets.token_urlsafe(16))' > $@

.venv/.venv:
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: .venv/.venv pyproject.toml constraints.txt
	@echo "Installing liquid-train into .venv (a few minutes the first time)"
	$(PIP) --editable '.[data,otlp]'
	@touch $@

.venv/.test: .venv/.venv pyproject.toml constraints.txt
	@echo "Installing liquid-train and its development tools into .venv (a few minutes the first time)"
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.run
