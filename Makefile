# The one entry to everything that people and CI run.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo test crash up down bench lint generate check-generated

# Queries are checked against the recorded schema (.sqlx); `make generate` records it anew.
export SQLX_OFFLINE ?= true

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

demo: ## a local cluster, the operator in it, and the examples built before your eyes
	@scripts/demo.sh

test: lint up check-generated ## everything: lints, rules, database and end-to-end tests
	@. .local/env && cargo test --workspace

up: ## start what is missing of the local test cluster, and install Image Factory
	@tests/cluster/up.sh

down: ## stop what `make up` started (WIPE=1: forget its data too)
	@tests/cluster/down.sh

lint: ## formatting, clippy, shell scripts, licences and bans where the tools are installed
	@scripts/lint.sh

generate: up ## write what is generated: crds/, the chart's copy, .sqlx
	@scripts/generate.sh

check-generated: ## fail where what is generated differs from what is checked in
	@scripts/check-generated.sh

crash: up ## operators crashed, frozen and cut off while builds run (twenty minutes; needs the cluster for itself)
	@. .local/env && cargo test --features failpoints --test crash

bench: ## what the operator adds to a bare Job, as ratios in one run (a release build, no limits)
	@scripts/bench.sh
