# `make demo` and `make test` are enough on a fresh Debian 12 clone: both install what is missing. `make` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Data for the next build makes the first one longer, by more than it saves a fresh clone. `CARGO_INCREMENTAL=1 make ...` is for work
# on the code; a build with the other value starts this project's own crates anew.
export CARGO_INCREMENTAL ?= 0

# A toolchain of rustup goes before an older one of the distribution.
export PATH := $(HOME)/.cargo/bin:$(PATH)

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
ENGINE := $(TARGET)/debug/ja4-engine
VENV := $(TARGET)/venv
LISTEN ?= 127.0.0.1:8080
ORACLE_REQUIREMENTS := pipelines/tests/oracle/requirements.txt
CLICKHOUSE_VENV := $(TARGET)/venv-clickhouse
CLICKHOUSE_REQUIREMENTS := tests/clickhouse/requirements.txt
# Of the traffic that end-to-end tests generate, their kills and faults. Empty: another one each time.
TEST_SEED ?= $(or $(SEED),1)

BUILD_PACKAGES := build-essential libpcap-dev python3
TEST_PACKAGES := python3-venv tshark iproute2 curl openssl util-linux apache2 nginx caddy ethtool logrotate nftables haproxy
APACHE_PACKAGES := build-essential apache2 apache2-dev libclang-dev clang
OPTIONAL_PACKAGES := chromium firefox-esr libnss3-tools golang-go nodejs tcpreplay
# A Node that is there has its npm; Debian's would push it aside.
NODE_PACKAGES := $(if $(shell command -v npm),,nodejs npm)
RECORD_PACKAGES := apache2 chromium curl ethtool iproute2 libnss3-tools mawk openssl python3-requests tcpdump tshark wget $(NODE_PACKAGES)
TIERS_PACKAGES := firefox-esr nftables python3-venv squid-openssl
# What some of its bots are made of; those whose tool is missing are made of another.
TIERS_OPTIONAL := chromium-driver golang-go php-cli php-curl ruby libwww-perl $(if $(shell command -v javac),,default-jdk-headless)
TIERS_CLIENTS := pipelines/recording/clients/tiers
RECORD_VENV := $(TARGET)/venv-recording
OLDER_BROWSERS := $(TARGET)/browsers

# One selection of packages and features for test and lint: with another one Cargo would build DataFusion twice. The demo's binary
# alone has the same features.
SELECTION := --locked --workspace

AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

.PHONY: demo
demo: binary ## run the recorded traffic through pipelines/demo.yaml; SERVE=1 keeps the dashboards up, at LISTEN
	$(call say,Running pipelines/demo.yaml on the recording in pipelines/recording/demo)
	@$(ENGINE) run $(if $(SERVE),--serve --listen $(LISTEN),--listen 127.0.0.1:0) pipelines/demo.yaml
	@$(if $(SERVE),true,python3 scripts/detections.py data/demo/detections.jsonl pipelines/recording/demo/truth.jsonl)
	@$(if $(SERVE),true,printf '\nTables and files: data/demo. To look at them: make demo SERVE=1, then http://127.0.0.1:8080 (ends with Ctrl-C)\n')

.PHONY: test
test: build test-tools ## everything that CI checks: format, lints, docs, licences, Rust tests, end-to-end tests
	@$(MAKE) lint
	@$(MAKE) licences
	@$(MAKE) test-rust
	@$(MAKE) test-end-to-end

.PHONY: test-rust
test-rust: ## unit and integration tests of the crates
	$(call say,Rust tests)
	@cargo test $(SELECTION)

.PHONY: test-end-to-end
test-end-to-end: build test-tools ## the binary on recorded, live and bad input, several at a time; ONLY=tests.cli.test_logs for a part
	$(call say,End-to-end tests)
	@cd pipelines/tests/oracle && $(VENV)/bin/python -m unittest --quiet
	@SEED=$(TEST_SEED) JA4_ENGINE=$(ENGINE) ORACLE_PYTHON=$(VENV)/bin/python CLICKHOUSE_PYTHON=$(CLICKHOUSE_VENV)/bin/python \
		python3 tests/run.py $(if $(JOBS),--jobs $(JOBS)) $(ONLY)

.PHONY: check
check: build ## what a change needs before it is committed: format, lints, docs, Rust tests
	@$(MAKE) lint
	@$(MAKE) test-rust

# Counts of `make soak`. SEED repeats a run; without it each run has other traffic, kills and faults.
soak: export KILLS ?= 300
soak: export RELOADS ?= 200
soak: export PLANS ?= 500
soak: export STOPS ?= 60
soak: export SEEDS ?= 30
SOAK := recovery.test_kill recovery.test_reference reload.test_reload clickhouse.test_sink clickhouse.test_kill clickhouse.test_restart \
	clickhouse.test_change correlate.test_rows

# What was asked for, not the default of `make fuzz`.
SOAK_SEED = $(if $(filter command environment,$(origin SEED)),$(SEED))

.PHONY: soak
soak: ## kills, changes, faults of the server and fuzzing for hours, with other seeds each time; KILLS, RELOADS, PLANS, STOPS, SEEDS
	@$(MAKE) test-end-to-end TEST_SEED=$(SOAK_SEED) ONLY="$(addprefix tests.,$(SOAK))"
	@$(MAKE) fuzz FUZZ_SECONDS=3600 SEED=$(or $(SOAK_SEED),$$RANDOM)

.PHONY: attack
attack: binary ## hostile SQL, requests, lines, captures, pipelines and files against engines of its own, 10 minutes at most; a table of what held; STATEMENTS=10000 SEED=1 ONLY=sql,http
	$(call say,Attacks)
	@JA4_ENGINE=$(ENGINE) python3 -m tests.attack.main --seed $(SEED) $(if $(STATEMENTS),--statements $(STATEMENTS) --seconds 3600) $(if $(ONLY),--only $(ONLY))

.PHONY: lint
lint: ## formatting, clippy and rustdoc, without a warning; no circle of modules, no long function, no broken link
	$(call say,Formatting)
	@cargo fmt --all --check
	$(call say,Clippy)
	@cargo clippy $(SELECTION) --all-targets -- -D warnings
	$(call say,Rustdoc)
	@RUSTDOCFLAGS="-D warnings" cargo doc $(SELECTION) --no-deps
	$(call say,Links of the documents)
	@python3 scripts/links.py
	$(call say,Modules that depend on each other)
	@python3 scripts/circles.py engine/src engine/spool/src engine/cluster/src engine/functions/src engine/system/src command_line/src command_line/compare/src operators/src operators/client_hello/src operators/capture_file/src dashboards/src migrations/src
	$(call say,Lengths of files and functions)
	@python3 scripts/sizes.py engine/src engine/spool/src engine/cluster/src engine/functions/src engine/system/src command_line/src command_line/compare/src operators/src operators/client_hello/src operators/capture_file/src dashboards/src migrations/src src

.PHONY: fmt
fmt: ## format the Rust code
	@cargo fmt --all

.PHONY: licences
licences: ## licences, sources and duplicates of all dependencies, by deny.toml; needs no network
	$(call say,Licences and sources of the dependencies)
	@python3 scripts/licences.py deny.toml

.PHONY: audit
audit: ## cargo-deny with the advisory database; needs the network and `cargo install --locked cargo-deny`
	@cargo deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	@cargo deny --locked --all-features check

.PHONY: record
record: ## a recording (root): the demo's anew, 5 minutes; or SCENARIO=tiers SEED=7 OUT=data/recordings/7, people and bots of four tiers, 10 minutes
	@$(MAKE) record-$(or $(SCENARIO),demo)

.PHONY: record-demo
record-demo:
	@scripts/packages.sh $(RECORD_PACKAGES)
	@$(AS_ROOT) python3 pipelines/recording/record.py

.PHONY: record-tiers
record-tiers: record-tools
	@$(AS_ROOT) python3 pipelines/recording/record_tiers.py --seed $(SEED) --output $(or $(OUT),data/recordings/$(SEED)) \
		--python $(RECORD_VENV)/bin/python --browsers $(OLDER_BROWSERS)

.PHONY: record-tools
record-tools:
	@scripts/packages.sh $(RECORD_PACKAGES) $(TIERS_PACKAGES)
	@for package in $(TIERS_OPTIONAL); do scripts/packages.sh --optional $$package; done
	@scripts/venv.sh $(RECORD_VENV) $(TIERS_CLIENTS)/requirements.txt
	@cmp --silent $(TIERS_CLIENTS)/package-lock.json $(TIERS_CLIENTS)/node_modules/.installed || { cd $(TIERS_CLIENTS) && \
		npm ci --ignore-scripts --no-audit --no-fund --silent && cp package-lock.json node_modules/.installed; }
	@pipelines/recording/older_browsers.sh $(OLDER_BROWSERS)

.PHONY: recall
recall: binary ## what a pipeline finds in recordings of SCENARIO=tiers: TEST="data/recordings/7 …", TRAIN="…", PIPELINE=pipelines/detect.yaml
	@JA4_ENGINE=$(ENGINE) python3 scripts/recall.py --pipeline $(or $(PIPELINE),pipelines/detect.yaml) $(if $(TRAIN),--train $(TRAIN) --) --misses $(TEST)

.PHONY: browsers
browsers: binary record-tools ## make pipelines/reference/browser_ja4.csv anew: hellos of curl-cffi's profiles and of Debian's browsers (root)
	@$(AS_ROOT) python3 scripts/browser_table.py --python $(RECORD_VENV)/bin/python --browsers $(OLDER_BROWSERS) \
		--keep pipelines/reference/browser_ja4.csv $(ENGINE)

.PHONY: bench
bench: ## generate the benchmark's input and measure the whole job with the release profile (see benches/README.md)
	@scripts/packages.sh $(BUILD_PACKAGES) time
	@scripts/toolchain.sh
	@benches/run.sh

# Of its own: with `-p` Cargo would unify other features in the shared folder.
FUZZ_TARGET := $(TARGET)/fuzz
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= packet tls quic dtls capture_file lines
SEED ?= 1
# The seconds of some targets; the program of a crate, and its name, if it has some.
fuzz_seconds = $$(($(FUZZ_SECONDS) * $(words $(1)) / $(words $(FUZZ_TARGETS))))
fuzz_crate = @$(if $(2),CARGO_TARGET_DIR=$(FUZZ_TARGET) CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
	CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true cargo run --locked --release --package $(1) --example $(3) -- \
	$(call fuzz_seconds,$(2)) $(SEED) $(2),true)

.PHONY: fuzz
fuzz: ## mutated packets, TLS, QUIC, DTLS, capture files and lines through the parsers, FUZZ_SECONDS=60 shared by all, SEED=1; no panic, no growth, no slow case
	$(call say,Fuzzing for $(FUZZ_SECONDS) s)
	$(call fuzz_crate,client-hello,$(filter-out capture_file lines,$(FUZZ_TARGETS)),fuzz)
	$(call fuzz_crate,capture-file,$(filter capture_file,$(FUZZ_TARGETS)),fuzz_files)
	@# The development profile, which has the crate's dependencies already.
	$(if $(filter lines,$(FUZZ_TARGETS)),@cargo build $(SELECTION) --example fuzz_lines && $(TARGET)/debug/examples/fuzz_lines $(call fuzz_seconds,lines) $(SEED))

.PHONY: binary
binary: ## the binary alone, development profile
	$(call say,Packages and toolchain)
	@scripts/packages.sh $(BUILD_PACKAGES)
	@scripts/toolchain.sh
	$(call say,Building the binary (the first time takes minutes))
	@cargo build --locked --bins

.PHONY: build
build: ## the binary and the tests, development profile
	$(call say,Packages and toolchain)
	@scripts/packages.sh $(BUILD_PACKAGES)
	@scripts/toolchain.sh
	$(call say,Building the binary and the tests (the first time takes a while))
	@cargo build $(SELECTION) --bins --tests

# Of its own: another workspace.
APACHE := CARGO_TARGET_DIR=$(TARGET)/apache cargo

.PHONY: apache
apache: ## build the Apache module and test it in Debian's Apache; beside the engine too, if that is built (apache/README.md)
	@scripts/packages.sh $(APACHE_PACKAGES) $(TEST_PACKAGES)
	@scripts/toolchain.sh --components
	$(call say,Building the Apache module)
	@$(APACHE) build --locked --release --manifest-path apache/Cargo.toml
	$(call say,Its tests)
	@$(APACHE) fmt --check --manifest-path apache/Cargo.toml
	@$(APACHE) clippy --locked --all-targets --manifest-path apache/Cargo.toml -- -D warnings
	@python3 scripts/sizes.py apache/src
	@$(APACHE) test --locked --manifest-path apache/Cargo.toml
	@SEED=$(TEST_SEED) JA4_ENGINE=$(ENGINE) MOD_REQIN_LOG=$(TARGET)/apache/release/libmod_reqin_log.so \
		python3 tests/run.py tests.apache.test_module tests.apache.test_live

.PHONY: test-tools
test-tools:
	$(call say,Tools for the tests)
	@scripts/packages.sh $(TEST_PACKAGES)
	@for package in $(OPTIONAL_PACKAGES); do scripts/packages.sh --optional $$package; done
	@scripts/toolchain.sh --components
	@scripts/venv.sh $(VENV) $(ORACLE_REQUIREMENTS)
	@scripts/venv.sh $(CLICKHOUSE_VENV) $(CLICKHOUSE_REQUIREMENTS)

.PHONY: clean
clean: ## remove what was built and what the demo wrote
	@cargo clean
	@rm -rf data
