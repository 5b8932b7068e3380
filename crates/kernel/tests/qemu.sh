#!/bin/sh
# Runs test programs on another kernel, under QEMU's emulation: slow, by hand, not part of the gate.
#
#   apt-get download linux-image-6.1.0-NN-amd64      # one package: its full name
#   cargo test -p flowyard-kernel -p flowyard-port --no-run
#   sh crates/kernel/tests/qemu.sh linux-image-*.deb target/debug/deps/attached-HASH target/debug/deps/estate-HASH
#
# A library that is loaded at run time (/usr/lib/…/libpcap.so.0.8) may stand among the programs; ONLY=NAME runs tests of
# that name alone.
#
# Needs qemu-system-x86_64, busybox (static) and dpkg-deb; the machine that it makes has ip and ethtool from here, two
# processors, a BPF file system and the module veth, and nothing on a disk. Ends with 0 if every program did.
set -eu
package=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

dpkg-deb -x "$package" "$work/kernel"
kernel=$(ls "$work"/kernel/boot/vmlinuz-*)
release=${kernel##*/vmlinuz-}
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/tests"
cp "$(command -v busybox)" "$root/bin/busybox"

# A program, and the libraries it names, at the same place.
take() {
	for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
		mkdir -p "$root$(dirname "$file")"
		[ -e "$root$file" ] || cp -L "$file" "$root$file"
	done
}
for tool in ip ethtool; do
	path=$(readlink -f "$(command -v $tool)")
	take "$path"
	ln -s "$path" "$root/bin/$tool"
done
for file in "$work/kernel/lib/modules/$release"/kernel/drivers/net/veth.ko*; do
	cp "$file" "$root/veth.ko"
done
for program in "$@"; do
	case $program in
	*.so*) take "$program" ;;
	*)
		path=$(readlink -f "$program")
		take "$path"
		echo "$path" >>"$root/tests/list"
		;;
	esac
done

echo "${ONLY:-}" >"$root/tests/only"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp RUST_BACKTRACE=0
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t bpf none /sys/fs/bpf
mount -t tmpfs none /tmp
insmod /veth.ko
ip link set lo up
uname -r
failed=0
while read -r program; do
	echo "== $program"
	timeout 900 "$program" --test-threads 1 $(cat /tests/only) </dev/null || failed=1
done </tests/list
echo "FLOWYARD $failed"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$work/initrd"

qemu-system-x86_64 -machine q35 -cpu max -smp 2 -m 2048 -nographic -no-reboot \
	-kernel "$kernel" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" </dev/null | tee "$work/said"
grep -q '^FLOWYARD 0' "$work/said"
