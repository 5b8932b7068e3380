#!/usr/bin/env bash
# The one gate: what is run before a push and what CI runs. Installs what it needs (as root, from
# Debian's packages), builds, lints and tests everything. Without root the live tests report
# themselves skipped. With FLOWYARD_CORPUS set to a folder of captures, those are judged as well.
#
#   ./ci.sh            everything but the WebAssembly sandbox and Python's module, which take minutes to build
#   ./ci.sh full       these as well
#   ./ci.sh quick      without the model checker, the licence check and the release build
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

packages=(clang llvm libbpf-dev iproute2 ethtool tcpdump tshark bpftool iperf3 libpcap0.8
	gcc g++ make pkg-config libpcap-dev ngrep valgrind)
missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
	step "installing ${missing[*]}"
	if [ "$(id -u)" = 0 ]; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq
		apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
	else
		echo "not root: tests that need ${missing[*]} report themselves skipped"
	fi
fi

step "format"
cargo fmt --all -- --check

step "lints"
# The sandbox is linted by `full`, where its engine is built.
cargo clippy --workspace --exclude flowyard-wasm --all-targets --quiet -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude flowyard-wasm --no-deps --quiet

step "eBPF objects are what their sources give"
if command -v clang >/dev/null; then
	sh crates/port/bpf/build.sh --check
	sh crates/kernel/bpf/build.sh --check
else
	echo "SKIPPED: no clang"
fi

step "tests"
cargo test --workspace --exclude flowyard-wasm --quiet --no-fail-fast

if [ "${1:-}" = quick ]; then
	step "done, without the slow parts"
	exit 0
fi

if [ "${1:-}" = full ]; then
	step "the WebAssembly sandbox: lints and tests"
	# Linted by the compiler that builds the tests: `cargo clippy` would check the engine once more, for minutes.
	RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS="-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__" \
		cargo test -p flowyard-wasm -p flowyard-cli --features flowyard-cli/wasm --quiet --no-fail-fast

	step "Python's module"
	if command -v python3 >/dev/null; then
		cargo fmt --manifest-path python/Cargo.toml -- --check
		sh python/build.sh
		cargo test -p flowyard-capi --test python --quiet
	else
		echo "SKIPPED: no python3"
	fi
fi

step "the ring under the model checker"
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p flowyard-mem --lib --release --quiet loom

step "licences, bans, sources"
if ! cargo deny --version >/dev/null 2>&1; then
	cargo install cargo-deny --locked --quiet --debug # half the time of an optimised build
fi
cargo deny --all-features check bans licenses sources

step "the program on its embedded default"
cargo run --release --quiet --bin flowyard -- run

step "instructions on a packet's way keep to their limits"
cargo run --release --quiet -p flowyard-bench -- steps --gate

step "all good"
