#!/bin/sh
# Builds the module with cargo alone, and puts it beside this script, or into the folder that is given:
#
#   python/build.sh            then PYTHONPATH=python python3 -c 'import flowyard'
#   python/build.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here}
target=${CARGO_TARGET_DIR:-$here/../target}/python
CARGO_TARGET_DIR=$target cargo build --release --manifest-path "$here/Cargo.toml"
mkdir -p "$to"
install -m 755 "$target/release/libflowyard_python.so" "$to/flowyard.abi3.so"
