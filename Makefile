# Start here: `make dev` runs a three-datacenter cluster in one process, `make test` runs every test.
# Both install what is missing on Debian or Ubuntu. Builds live in a cache folder outside the clone (.ci/env.sh).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help

SEEDS ?= 500
SEED ?=
ARGS ?=
DIR ?=

help: ## what can be made here
	grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: ## packages that a build needs, where they are missing
	bash .ci/install.sh

build: install ## the binary, in the one profile that dev, test and chaos share
	. .ci/env.sh; build_rocksdb_archive; use_rocksdb_archive
	bash .ci/build.sh cargo build --locked --workspace --bins

release: install ## the binary as it is shipped
	. .ci/env.sh; build_rocksdb_archive; use_rocksdb_archive
	cargo build --locked --release --bin meridian
	echo "built $$CARGO_TARGET_DIR/release/meridian"

dev: build ## a three-datacenter cluster in one process; Ctrl-C stops it
	. .ci/env.sh
	exec "$$CARGO_TARGET_DIR/debug/meridian" dev $(if $(DIR),--dir $(DIR)) $(ARGS)

test: build ## every test
	. .ci/env.sh; use_rocksdb_archive
	bash .ci/install-test.sh
	bash .ci/test.sh

callgrind: install ## instructions of the hot paths' kernels against .ci/callgrind.baseline; RECORD=1 writes that anew
	bash .ci/install-test.sh
	bash .ci/callgrind.sh $(if $(RECORD),--record)

test-clients: build ## boto3, aws CLI, s3cmd, rclone, restic and curl against three datacenters; FULL=1 for the slow ones
	. .ci/env.sh
	bash .ci/clients.sh "$$CARGO_TARGET_DIR/debug/meridian" $(ARGS)

check: install ## fmt, clippy -D warnings, licences, tidy
	. .ci/env.sh; build_rocksdb_archive; use_rocksdb_archive
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	bash .ci/deny.sh
	# The whole workspace is selected, so that dependencies keep the features that they were built with.
	cargo test --locked -q --workspace --test tidy

bench: release ## the workloads of `meridian bench` against a cluster of its own, as bench.md and bench.json in the cache folder
	. .ci/env.sh
	"$$CARGO_TARGET_DIR/release/meridian" bench --self-hosted --workloads put,get,mixed,list,blob-put,blob-get,large-put,large-get \
	    --markdown "$$CARGO_TARGET_DIR/bench.md" --report "$$CARGO_TARGET_DIR/bench.json" $(ARGS)
	echo "wrote $$CARGO_TARGET_DIR/bench.md and bench.json"

chaos: install ## the simulation of the pure core: SEEDS=n [SEED=k]
	. .ci/env.sh; build_rocksdb_archive; use_rocksdb_archive
	# The whole workspace is selected, so that dependencies keep the features that they were built with.
	SEEDS=$(SEEDS) $(if $(SEED),SEED=$(SEED)) cargo test --locked --workspace --test simulation short_run -- --nocapture

compose-image: build ## the container image `meridian`, from the binary of `make build`
	. .ci/env.sh
	bash compose/image.sh "$$CARGO_TARGET_DIR/debug/meridian"

compose-test: build ## the tour of compose/README.md over containers, checked
	. .ci/env.sh
	bash compose/test.sh "$$CARGO_TARGET_DIR/debug/meridian"

.PHONY: help install build release dev test test-clients check callgrind bench chaos compose-image compose-test
