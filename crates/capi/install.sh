#!/bin/sh
# Installs what programs in C, and programs that use libpcap, need: header, libraries and pkg-config file.
#
#   crates/capi/install.sh PREFIX            builds the libraries first (cargo build --release)
#   crates/capi/install.sh PREFIX FOLDER     takes libflowyard_capi.so, and libflowyard_pcap.so if it is there, from FOLDER
set -eu
prefix=${1:?where to: install.sh PREFIX [FOLDER]}
here=$(cd "$(dirname "$0")" && pwd)
from=${2:-}
if [ -z "$from" ]; then
	(cd "$here/../.." && cargo build --release -p flowyard-capi -p flowyard-pcap)
	from=${CARGO_TARGET_DIR:-$here/../../target}/release
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")
mkdir -p "$prefix/lib/pkgconfig" "$prefix/include"
prefix=$(cd "$prefix" && pwd)
install -m 644 "$here/include/flowyard.h" "$prefix/include/flowyard.h"
install -m 755 "$from/libflowyard_capi.so" "$prefix/lib/libflowyard.so.1"
ln -sf libflowyard.so.1 "$prefix/lib/libflowyard.so"
if [ -e "$from/libflowyard_pcap.so" ]; then
	install -m 755 "$from/libflowyard_pcap.so" "$prefix/lib/libflowyard-pcap.so"
fi
sed "s|@PREFIX@|$prefix|; s|@VERSION@|$version|" "$here/flowyard.pc.in" >"$prefix/lib/pkgconfig/flowyard.pc"
