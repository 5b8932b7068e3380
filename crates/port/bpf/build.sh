#!/bin/sh
# Builds the eBPF objects beside their sources, or with --check says whether those there are what
# the sources give. The flags keep paths out of the object, so it is the same wherever it is built
# by the same compiler; -g is for the BTF that map definitions need.
#
# Needs clang (CLANG=clang-14 by default where there is one: another version gives other bytes) and
# libbpf's headers.
set -eu
cd "$(dirname "$0")"
clang=${CLANG:-$(command -v clang-14 || command -v clang)}
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT

for source in *.bpf.c; do
	object=${source%.c}.o
	"$clang" -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror \
		-I"/usr/include/$(uname -m)-linux-gnu" -I../../kernel/bpf \
		-fdebug-compilation-dir=. -ffile-prefix-map="$PWD"=. \
		-c "$source" -o "$target/$object"
	if [ "${1:-}" = --check ]; then
		cmp "$target/$object" "$object" || {
			echo "bpf/$object is not what $("$clang" --version | head -n 1) makes of $source: run bpf/build.sh" >&2
			exit 1
		}
	else
		mv "$target/$object" "$object"
	fi
done
