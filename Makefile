# Each target installs the Debian packages that it needs: see tests/setup/install.sh.
INSTALL := tests/setup/install.sh
# The documentation is for developers of octoserve, so it includes private items.
DOC := cargo doc --quiet --workspace --no-deps --document-private-items

PREFIX ?= /usr/local

.PHONY: run install dist test screenshots lint bench soak fuzz docs

run: ## The all-in-one on 127.0.0.1:5000, its status page on port 5001, its data in ./data
	@$(INSTALL) build
	cargo build --profile try --package octoserve-proxy --bin octoserve
	@exec target/try/octoserve --listen 127.0.0.1:5000 --metrics-listen 127.0.0.1:5001 --data ./data

install: ## Both programs, built for release, into $(PREFIX)/bin
	@$(INSTALL) build
	cargo build --release --locked --package octoserve-proxy --package octoserve-registry --bins
	install -d $(DESTDIR)$(PREFIX)/bin
	install target/release/octoserve target/release/octoserve-registry $(DESTDIR)$(PREFIX)/bin

dist: ## An archive, a Debian package, an SBOM and their checksums, in target/dist
	@$(INSTALL) build dist
	cargo build --release --locked --package octoserve-proxy --package octoserve-registry --bins
	packaging/dist.sh target/release target/dist

test: ## All tests; `make test SUITES="docker slow"` runs only these suites
	@$(INSTALL) build test
	@tests/setup/run.sh $(SUITES)

screenshots: ## docs/images/status-page-*.png, of real traffic in a real browser
	@$(INSTALL) build test
	SCREENSHOTS=$(CURDIR)/docs/images cargo test --quiet --workspace --test suites -- status_page::screenshots

lint: ## Format, clippy, rustdoc, licences and sources of the dependencies
	@$(INSTALL) build lint
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(DOC)
	target/tools/bin/cargo-deny --log-level error check --hide-inclusion-graph bans licenses sources

bench: ## Compare with haproxy, nginx and docker-registry; writes docs/benchmarks.md
	@$(INSTALL) build bench
	cargo build --release --bins
	cargo run --quiet --package octoserve-tests --bin bench -- $(BENCH)

MINUTES ?= 10

soak: ## 500 kills, all clients, faults and takeovers for ten minutes (`make soak MINUTES=120`), then each fuzz target
	@$(INSTALL) build soak
	cargo build --release --package octoserve-proxy --package octoserve-registry --bins
	cargo run --quiet --package octoserve-tests --bin soak -- --minutes $(MINUTES) $(SOAK)
	@$(MAKE) --no-print-directory fuzz

# The flags of cargo-fuzz without sanitizers, which need a nightly compiler.
COVERAGE := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ ?= route name digest reference range content_range manifest configuration exposition request response
# What these forward is read by another implementation of HTTP/1.1, too: of each input that was kept.
FORWARDED := $(filter request response,$(FUZZ))
SECONDS ?= 60

fuzz: ## Each fuzz target for a minute; `make fuzz FUZZ=exposition SECONDS=3600` runs one for an hour
	@$(INSTALL) build fuzz
	RUSTFLAGS='$(COVERAGE)' cargo build --release --manifest-path fuzz/Cargo.toml \
	  --target-dir target/fuzz --target $$(rustc -vV | sed -n 's/^host: //p')
	@set -e; for target in $(FUZZ); do \
	  mkdir -p target/fuzz/corpus/$$target; \
	  target/fuzz/*/release/$$target -max_total_time=$(SECONDS) -timeout=10 -print_final_stats=1 \
	    -artifact_prefix=target/fuzz/ target/fuzz/corpus/$$target fuzz/seeds/$$target; \
	done
	@set -e; for target in $(FORWARDED); do \
	  rm -f target/fuzz/$$target.forwarded; \
	  FORWARDED=target/fuzz/$$target.forwarded target/fuzz/*/release/$$target -runs=0 \
	    target/fuzz/corpus/$$target fuzz/seeds/$$target; \
	  target/tools/h11/bin/python fuzz/read_with_h11.py target/fuzz/$$target.forwarded; \
	done

docs: ## The documentation of the crates, for a browser
	@$(INSTALL) build
	$(DOC)
	@echo target/doc/service/index.html target/doc/registry/index.html target/doc/proxy/index.html
