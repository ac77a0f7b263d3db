# The two commands of the README are `make demo` and `make test`. Demo, tests and CI share one build profile.

CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
ARTEL = $(TARGET)/debug/artel
NEXTEST = $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
PACKAGE ?= base-files

.PHONY: demo test judged lint unit demos packages operators boot bench sim versions blame chaos judges fuzz fuzz-smoke fuzz-on fuzz-table release setup clean

demo: setup
	$(CARGO) build --locked -p artel
	$(ARTEL) demo --package $(PACKAGE)

test: judged lint unit demos

setup:
	@.ci/setup

# Go's reader of the log, too: a minute where it is not there yet.
judged:
	@.ci/setup judges

lint:
	$(CARGO) fmt --all --check
	cd fuzz && $(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd fuzz && CARGO_TARGET_DIR=$(abspath $(TARGET)) $(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings

# Without cargo-nextest the same tests run by `cargo test`, one at a time where they start whole networks.
unit:
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace --profile ci
else
	$(CARGO) test --locked --workspace --exclude artel-tests --lib --bins --tests
	$(CARGO) test --locked -p artel-tests -- --test-threads=1
endif
	$(CARGO) test --locked --workspace --doc

demos:
	$(CARGO) build --locked -p artel
	.ci/demos $(ARTEL)

# Real source packages of the configured archive under two profiles, compared with each other and with the archive's own files.
# Run it as an ordinary user with a range in /etc/subuid; options of a package stand behind a colon: PACKAGES="cowsay:notrimdch"
PACKAGES ?= base-files distro-info-data cowsay cowsay:notrimdch hostname tree libyaml jinja2
PACKAGES_STATE ?= $(TARGET)/packages
packages: setup
	$(CARGO) build --locked -p artel --example packages
	$(TARGET)/debug/examples/packages $(PACKAGES_STATE) $(PACKAGES)

# The same packages by two operators of a real network, from the archive to an installation from a mirror, as a table.
operators: setup
	$(CARGO) build --locked -p artel
	.ci/operators $(ARTEL) $(PACKAGES)

# Each figure beside its limit or peer. Options: make bench BENCH="--quick --only transfer"
BENCH ?=
bench:
	@.ci/setup bench
	$(CARGO) build --locked --release -p artel --bin artel --example bench
	$(TARGET)/release/examples/bench $(BENCH)
	$(CARGO) run --locked --release -p artel-ledger --example scale -- $(filter --quick,$(BENCH))
	$(CARGO) run --locked --release -p artel-verify --example proof -- $(filter --quick,$(BENCH))

# The ledger's simulation with more schedules: make sim SEEDS=1000000; one of them again: SEED=7 make sim
SEEDS ?= 20000
sim:
	SEEDS=$(SEEDS) $(CARGO) test --locked --release -p artel-ledger --lib sim -- --nocapture --test-threads=1

# The orders of versions beside dpkg, its Perl modules and rpm, with so many pairs each: make versions PAIRS=100000
PAIRS ?= 100000
versions: setup
	ARTEL_PAIRS=$(PAIRS) $(CARGO) test --locked -p artel --lib version::tests -- --nocapture

# Black holes among the builders: the ledger's rules beside those that others use, as a table.
BLAME_SEEDS ?= 10
blame:
	BLAME_SEEDS=$(BLAME_SEEDS) $(CARGO) test --locked --release -p artel-ledger trial -- --nocapture --test-threads=1

# Kills the coordinator, pinned and elected, so often in each phase of a job: make chaos KILLS=25
KILLS ?= 25
chaos: setup
	ARTEL_TESTS=required ARTEL_KILLS=$(KILLS) $(CARGO) test --locked -p artel-tests --test it chaos -- --test-threads=1 --nocapture

# A live system by two operators, bit for bit the same, and a job that starts it: about seven minutes once its packages are here.
boot: setup
	ARTEL_TESTS=required ARTEL_BOOT=1 $(CARGO) test --locked -p artel-tests --test it image::a_live -- --nocapture

# The transparency log, a sample and that of a network of 10,000 entries, read by Go's checksum database and by crates of others;
# packages of a real network, asked for by clients that others wrote, which are compiled once and kept in the target folder (ten
# minutes).
JUDGES = $(abspath $(TARGET))/judges
JUDGED = $(abspath $(TARGET))/judged-log
judges:
	@.ci/setup judges
	ARTEL_TESTS=required ARTEL_LOG_FOLDER=$(JUDGED) $(CARGO) test --locked -p artel-tests --test it log::a_long_log -- --nocapture
	ARTEL_GO=required ARTEL_LOG_FOLDER=$(JUDGED) $(CARGO) test --locked -p artel-attest --test log_judges -- --nocapture
	$(CARGO) install --quiet --locked --root $(JUDGES) --target-dir $(JUDGES)/build repro-threshold@0.1.2
	$(CARGO) install --quiet --locked --root $(JUDGES) --target-dir $(JUDGES)/build debian-repro-status@0.4.0
	rm -rf $(JUDGES)/build
	ARTEL_JUDGES=$(JUDGES)/bin ARTEL_TESTS=required $(CARGO) test --locked -p artel-tests --test it judges -- --test-threads=1 --nocapture

# Fuzzing, with cargo-fuzz: every target for ten minutes (fuzz-smoke: one), or some for longer: make fuzz TARGETS="note proof" SECONDS_EACH=3600
# fuzz-on goes on until it is stopped, always with the target that has had least; fuzz-table says what was spent.
TARGETS ?=
SECONDS_EACH ?= 600
fuzz:
	@.ci/setup fuzz
	.ci/fuzz $(SECONDS_EACH) $(TARGETS)

fuzz-smoke:
	@$(MAKE) --no-print-directory fuzz SECONDS_EACH=60

fuzz-on:
	@.ci/setup fuzz
	.ci/fuzz on $(TARGETS)

fuzz-table:
	@.ci/fuzz table

release:
	$(CARGO) build --locked --release -p artel -p artel-verify

clean:
	$(CARGO) clean
