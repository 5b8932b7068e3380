#!/bin/sh
# Builds the eBPF objects and their disassembly beside their sources, or with --check says whether those
# there are what the sources give. The flags keep paths out of the object, so it is the same wherever it
# is built by the same compiler; -g is for the BTF that maps and global functions need.
#
# Needs clang (CLANG=clang-14 by default where there is one: another version gives other bytes), the
# llvm-objdump beside it (OBJDUMP) and libbpf's headers.
set -eu
cd "$(dirname "$0")"
clang=${CLANG:-$(command -v clang-14 || command -v clang)}
objdump=${OBJDUMP:-$(command -v llvm-objdump-14 || command -v llvm-objdump)}
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT

for source in *.bpf.c; do
	name=${source%.c}
	"$clang" -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror \
		-I"/usr/include/$(uname -m)-linux-gnu" \
		-fdebug-compilation-dir=. -ffile-prefix-map="$PWD"=. \
		-c "$source" -o "$target/$name.o"
	(cd "$target" && "$objdump" -d --no-show-raw-insn "$name.o" >"$name.s")
	for file in "$name.o" "$name.s"; do
		if [ "${1:-}" = --check ]; then
			cmp "$target/$file" "$file" || {
				echo "bpf/$file is not what $("$clang" --version | head -n 1) makes of $source: run bpf/build.sh" >&2
				exit 1
			}
		else
			mv "$target/$file" "$file"
		fi
	done
done
