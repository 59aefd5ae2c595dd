# The one entry to everything that people and CI run.
.PHONY: up down

up: ## start what is missing of the local test cluster, and install Image Factory
	@tests/cluster/up.sh

down: ## stop what `make up` started (WIPE=1: forget its data too)
	@tests/cluster/down.sh
