# What people and CI call. `make demo` needs nothing but Debian 12 and a Rust toolchain.

CARGO ?= cargo
DESTDIR ?=
PLUGIN_DIR ?= /opt/bacula/plugins
BIN_DIR ?= /usr/local/bin
TOOLS = target/tools
CARGO_DENY_VERSION = 0.20.2
CARGO_FUZZ_VERSION = 0.13.2
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.DEFAULT_GOAL := build
.PHONY: advisories bench build check-generated check-tree demo deny deps doc emulator fuzz generate install joblogs lint plugin sanitize sanitize-threads test test-peers torture torture-daemons

# Everything, unoptimised.
build:
	$(CARGO) build --workspace --locked

# The plugin under the name that the File Daemon expects, and the command line; optimised.
# A copy: the daemon skips symbolic links.
plugin:
	$(CARGO) build --release --locked -p azure-vm-fd
	cp -f target/release/libazure_vm_fd.so target/release/azure-vm-fd.so

install: plugin
	install -D -m 0644 target/release/azure-vm-fd.so $(DESTDIR)$(PLUGIN_DIR)/azure-vm-fd.so
	install -D -m 0755 target/release/azure-vm $(DESTDIR)$(BIN_DIR)/azure-vm

# Tools and private Bacula daemons for the demo and the tests.
deps:
	@tests/bacula/install-deps

# Backup, loss and restore of a VM with real Bacula daemons against the emulator.
demo: deps
	$(CARGO) build --quiet --locked -p azure-vm-fd --lib
	$(CARGO) run --quiet --locked -p bacula-bench --bin demo

# Rewrites docs/JOBLOGS.md from a Full, an Incremental, a fallback and a restore of the same kind.
joblogs: deps
	$(CARGO) build --quiet --locked -p azure-vm-fd --lib
	$(CARGO) run --quiet --locked -p bacula-bench --bin joblogs

# Programs that are not ours, as they are published, against the emulator and our programs. The peers are installed below target/.
test-peers:
	$(CARGO) build --locked -p mock-server --bin azure-emulator
	$(CARGO) build --locked -p azure-vm-fd --bin azure-vm --example peer
	$(CARGO) test --locked -p azure-vm-fd --test java_regex --no-run
	@tests/peers/run

# The emulator as one static file, target/emulator/azure-emulator, which needs nothing of the system that it runs on, not even
# /dev. Naming the target keeps the flags away from what runs during the build.
emulator:
	RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' $(CARGO) build --release --locked --target $(HOST) -p mock-server --bin azure-emulator
	install -D target/$(HOST)/release/azure-emulator target/emulator/azure-emulator
	@ldd target/emulator/azure-emulator 2>&1 | grep -E 'statically linked|not a dynamic executable'

# Most of the time of the tests goes by in waiting, for daemons and for polls: many more of them at once than there are cores.
# Properties are tried with the same cases each time, so that a change is judged by what it does; `make torture` draws new ones.
test:
	@tests/bacula/install-deps tests
	$(CARGO) build --locked -p azure-vm-fd --lib
	PROPTEST_RNG_SEED=1 RUST_TEST_THREADS=8 $(CARGO) test --workspace --locked

# Failure tried thousands of times: all cells of the matrix of requests and faults, and a thousand random schedules of faults; and new
# cases for the properties and the chains of runs. Takes half an hour.
torture:
	TORTURE=1 $(CARGO) test --locked -p azure-vm-fd --test torture -- --nocapture --test-threads 1
	CHAIN_SEEDS=50 $(CARGO) test --locked -p azure-vm-fd --lib --test host_abi -- --nocapture

# Real daemons that are killed, cancelled, made to panic and loaded, at random moments; about half an hour. A failure names its seed.
torture-daemons:
	@tests/bacula/install-deps tests
	$(CARGO) build --locked -p azure-vm-fd --lib
	DEATHS=25 CANCELS=25 PANICS=8 LEAK_ROUNDS=40 LOAD_MIB=64 RUST_TEST_THREADS=4 \
		$(CARGO) test --locked -p bacula-bench --test daemons -- torture:: --include-ignored --nocapture

# Fuzz targets of src/fuzzing.rs, one after the other, FUZZ_SECONDS each; needs the nightly toolchain, and cargo-fuzz, which is
# built below target/. What is found on the way is kept below target/fuzz. A finding ends it: put its file into fuzz/corpus.
FUZZ_SECONDS ?= 1800
FUZZ_TARGETS ?= page_list arm_answer conf_document plugin_command java_regex config_file connection_string tracker_file host_packets vhd_footer
fuzz:
	@test -x $(TOOLS)/bin/cargo-fuzz || \
		$(CARGO) install --quiet --locked --root $(TOOLS) --version $(CARGO_FUZZ_VERSION) cargo-fuzz
	set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz/found/$$target; \
		PATH="$(abspath $(TOOLS))/bin:$$PATH" $(CARGO) +nightly fuzz run --target-dir target/fuzz/build $$target target/fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -artifact_prefix=target/fuzz/found/ -max_len=16384 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1; \
	done

# The host-ABI tests, and the unit tests of what is unsafe, under AddressSanitizer; needs the nightly toolchain. The shared object finds
# the sanitizer in the program that loads it.
SANITIZED = $(CARGO) +nightly $(1) --locked --target $(HOST) --target-dir target/$@ -p azure-vm-fd
sanitize: export RUSTFLAGS = -Zsanitizer=address -Clink-args=-rdynamic
# What is leaked on purpose, the tables of the test's host and the payloads of panics, would be told; leaks are what torture::leaks is for.
sanitize: export ASAN_OPTIONS = detect_leaks=0
sanitize:
	$(call SANITIZED,test) --lib -- ffi fuzzing
	$(call SANITIZED,build) --lib
	$(call SANITIZED,test) --test host_abi

# What threads share, under ThreadSanitizer: the bridge, the pipeline, access and tokens, and the host-ABI tests. The standard library
# is built alike, so nightly needs its component rust-src.
sanitize-threads: export RUSTFLAGS = -Zsanitizer=thread -Clink-args=-rdynamic
sanitize-threads: export TSAN_OPTIONS = suppressions=$(CURDIR)/tests/host_abi/threads.supp
sanitize-threads:
	$(call SANITIZED,test) -Zbuild-std --lib -- ffi plugin pipeline access token
	$(call SANITIZED,build) -Zbuild-std --lib
	$(call SANITIZED,test) -Zbuild-std --test host_abi

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

doc:
	$(CARGO) doc --workspace --no-deps --locked

# Licences, sources, banned crates. cargo-deny is built below target/ if it is not installed.
deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || test -x $(TOOLS)/bin/cargo-deny || \
		$(CARGO) install --quiet --locked --root $(TOOLS) --version $(CARGO_DENY_VERSION) cargo-deny
	PATH="$(abspath $(TOOLS))/bin:$$PATH" $(CARGO) deny --locked check bans licenses sources

# Known vulnerabilities; fetches the advisory database, so it needs more of the network than the crates do.
advisories:
	$(CARGO) deny --locked check advisories

# No Azure SDK, reqwest or OpenSSL; `unsafe` in src/ffi only; two exported symbols.
check-tree:
	$(CARGO) test --locked -p bacula-bench --test daemons source_tree::

# Rewrites src/azure/generated from arm-specs/specs.
generate:
	$(CARGO) run --locked -p arm-specs

# Fails if src/azure/generated is not what the generator writes.
check-generated:
	$(CARGO) test --locked -p arm-specs

# Rewrites the tables of docs/performance.md. Beside curl, azcopy and Azure's SDKs are measured, if they can be installed below target/.
bench: deps
	@benches/peers/install
	$(CARGO) bench --locked -p azure-vm-fd --bench pipeline -- --warm-up-time 1 --measurement-time 2
	$(CARGO) bench --locked -p azure-vm-fd --bench transfer -- --write
	$(CARGO) build --release --locked -p azure-vm-fd --lib
	AZURE_VM_FD_PLUGIN=target/release/libazure_vm_fd.so $(CARGO) run --release --locked -p bacula-bench --bin file_daemon -- --write
