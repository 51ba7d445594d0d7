# Each target is one line that calls scripts/; each does its own set-up.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

setup: ## system packages, cargo-pgrx, a private copy of the server; the others do this by themselves
	@scripts/setup.sh

demo: ## the whole story in a private Postgres; KEEP=1 leaves it up and says how to reach it
	@KEEP='$(KEEP)' scripts/demo.sh

test: ## every test: unit, in-database, from outside; T=name runs those whose name contains it
	@T='$(T)' scripts/test.sh

lint: ## formatting, clippy, rustdoc, shellcheck; any finding is an error
	@scripts/lint.sh
