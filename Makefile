# Each target is one line that calls scripts/; each does its own set-up.
.DEFAULT_GOAL := help
.PHONY: help setup demo test soak soak-ledger soak-online lint bench bench-full install fuzz torture test-matrix package package-test deny upgrade-script freeze docs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

setup: ## system packages, cargo-pgrx, a private copy of the server; the others do this by themselves
	@scripts/setup.sh

demo: ## the whole story in a private Postgres; KEEP=1 leaves it up and says how to reach it
	@KEEP='$(KEEP)' scripts/demo.sh

test: ## every test; T=name: those whose name contains it; S=lib or S=file: one suite only
	@T='$(T)' S='$(S)' scripts/test.sh

soak: soak-ledger soak-online ## the ledger against its model, a million operations; a million rows protected under load

soak-ledger: ## PGT_OPERATIONS and PGT_SEED as in make test
	@PGT_OPERATIONS=$${PGT_OPERATIONS:-1000000} T=random_operations_agree_with_the_model scripts/test.sh

soak-online: ## while clients read and write, interrupted twice, the longest stall printed; PGT_ONLINE_ROWS=n: another size
	@PGT_ONLINE_ROWS=$${PGT_ONLINE_ROWS:-1000000} S=isolation T=while_clients SHOW=1 scripts/test.sh

torture: ## faults under load, made-up statements, fuzzing: an hour; ROUNDS=n, SMITH=seconds, FUZZ=seconds
	@ROUNDS='$(ROUNDS)' SMITH='$(SMITH)' FUZZ='$(FUZZ)' scripts/torture.sh

test-matrix: ## the tests on PostgreSQL 15 to 18, and the table in README.md; V=16: one of them
	@scripts/test_matrix.sh '$(V)'

lint: ## formatting, clippy, rustdoc, shellcheck; any finding is an error
	@scripts/lint.sh

fuzz: ## the parsers of tokens, keys and events under libFuzzer, a minute each; SECONDS=n: longer
	@scripts/fuzz.sh '$(or $(SECONDS),60)'

bench: ## ours beside what a user would write instead, ten minutes; BENCH=name: one of them
	@BENCH='$(BENCH)' scripts/bench.sh

bench-full: ## the same, long enough to hold the bars
	@FULL=1 BENCH='$(BENCH)' scripts/bench.sh

deny: ## licences, sources and known holes of every crate that is linked in
	@scripts/deny.sh

upgrade-script: ## the road from the last released version to this one, in sql/
	@scripts/upgrade_script.sh

freeze: ## at a release: keeps its scripts, so that tests hold them unchanged
	@scripts/freeze.sh

docs: ## the documentation as HTML, in target/docs
	@scripts/docs.sh

install: ## a release build into the system's server, or the one PG_CONFIG names
	@PG_CONFIG='$(PG_CONFIG)' scripts/install.sh

package: ## a .deb for Debian's PostgreSQL 15, a tarball, the sources, an SBOM: target/package
	@scripts/package.sh

package-test: ## installs that .deb with apt, tries it, removes it; root only
	@scripts/package_test.sh
