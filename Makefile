# Every habit of the project by name. `make demo` and `make test` work on a fresh Debian 12 machine with Rust.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vconverter
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export VCONVERTER_TESTDATA ?= $(abspath ../shared/testdata)

PROGRAMS := $(CARGO_TARGET_DIR)/x86_64-unknown-linux-gnu/release

.PHONY: help setup console build windows package demo test test-full soak lint bench fuzz clean-cache

help: ## list these habits
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install the Debian packages that are missing (through sudo when not root)
	@tools/setup

console: setup ## build the console (web/), which goes into the controller; done once for the same sources
	@tools/console

build: setup console ## build the programs
	cargo build --release --locked --bins

windows: ## build the programs for converted Windows guests; once for the same sources
	@tools/setup windows
	@tools/windows

package: build windows ## make the Debian package
	@tools/package "$(PROGRAMS)" "$(CARGO_TARGET_DIR)/package"

demo: build ## cold-clone a physical machine over the network into a VM that boots, and show it
	@$(PROGRAMS)/vconverter-lab demo

test: build windows ## every test, a representative row of each matrix
	@tools/setup test
	@tools/fuzz-api --install
	@tools/test

test-full: build windows ## every row of every matrix
	@tools/setup test
	@tools/setup peers
	@tools/fuzz-api --install
	@VCONVERTER_ROWS=full tools/test

soak: build ## the interruptions again and again (SOAK_ROUNDS=10)
	@for round in $$(seq $${SOAK_ROUNDS:-10}); do VCONVERTER_ROWS=full tools/test -E 'binary(resume)'; done

lint: console ## formatting, clippy, types of the console, and the rules of ARCHITECTURE.md
	npm --prefix web run -s check
	npm --prefix web run -s format:check
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo test --release --locked -q -p lab --test rooms

bench: build ## the measured gates, each paired with its peer in one run
	@tools/setup bench
	@tools/bench

fuzz: build ## each parser for two minutes (FUZZ_SECONDS=120), then the API for each role
	@tools/fuzz
	@tools/fuzz-api --programs "$(PROGRAMS)" --seconds "$${FUZZ_SECONDS:-120}"

clean-cache: ## remove what is kept outside the tree
	rm -rf "$(CACHE)"
