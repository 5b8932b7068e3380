//! Maps of a user's program by name, whatever they hold; kept when another version of the program comes.

mod common;

use std::process::Command;

use common::{classifier, load};
use flowyard_kernel::{Company, KernelSteer, Setup, UserMap, UserSlot};
use flowyard_testkit::net::skipped;
use flowyard_testkit::require_root;

/// A program that counts, by a hash map of so many entries, an array that each processor has, and a global.
fn object(entries: u32) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, object) = (dir.path().join("counting.bpf.c"), dir.path().join("counting.bpf.o"));
    let text = format!(
        "#include \"flowyard.bpf.h\"\n\
         struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, {entries}); __type(key, __u16); __type(value, __u64); }} seen SEC(\".maps\");\n\
         struct {{ __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u32); }} each SEC(\".maps\");\n\
         struct {{ __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); }} said SEC(\".maps\");\n\
         __u64 total;\n\
         static __always_inline int user(struct xdp_md *ctx) {{\n\
         __u16 one = 1; __u32 first = 0; __u64 *n = bpf_map_lookup_elem(&seen, &one); __u32 *m = bpf_map_lookup_elem(&each, &first);\n\
         if (n) __sync_fetch_and_add(n, 1);\n\
         if (m) *m += 1;\n\
         __sync_fetch_and_add(&total, 1);\n\
         void *room = bpf_ringbuf_reserve(&said, 8, 0); if (room) bpf_ringbuf_discard(room, 0);\n\
         return flowyard_go_on(ctx, FLOWYARD_DELIVER); }}\n\
         FLOWYARD_PROGRAM(user)\n\
         char _license[] SEC(\"license\") = \"Dual MIT/GPL\";\n"
    );
    std::fs::write(&source, text).expect("written");
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-I"]);
    clang.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf"));
    clang.arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH));
    let Ok(built) = clang.arg("-c").arg(source).arg("-o").arg(&object).status() else {
        skipped(module_path!(), line!(), "needs clang");
        return None;
    };
    assert!(built.success());
    Some(std::fs::read(object).expect("an object"))
}

fn map(kernel: &KernelSteer, name: &str) -> UserMap {
    let mut maps = kernel.user_maps(UserSlot::After);
    let at = maps.iter().position(|map| map.name() == name).unwrap_or_else(|| panic!("there is no {name}"));
    maps.swap_remove(at)
}

fn number(values: &[Vec<u8>]) -> u64 {
    values.iter().map(|v| v.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))).sum()
}

fn install(kernel: &KernelSteer, object: &[u8], fresh: bool) -> Vec<String> {
    let prepared = match fresh {
        true => kernel.prepare("counting", object),
        false => kernel.prepare_for(UserSlot::After, "counting", object),
    };
    let prepared = prepared.unwrap_or_else(|e| panic!("{e}"));
    let mut kept = prepared.kept().to_vec();
    kept.sort();
    kernel.install(UserSlot::After, prepared).unwrap_or_else(|e| panic!("{e}"));
    kept
}

#[test]
fn maps_are_read_and_written_by_name_and_kept_from_version_to_version() {
    require_root!();
    let (Some(object_), Some(larger)) = (object(8), object(16)) else { return };
    let kernel = load(&classifier(4), false);
    assert!(kernel.user_maps(UserSlot::After).is_empty(), "the slot is empty");
    assert_eq!(install(&kernel, &object_, false), Vec::<String>::new());
    let names: Vec<String> = kernel.user_maps(UserSlot::After).iter().map(|map| map.name().to_owned()).collect();
    assert!(["seen", "each", "said"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("flowyard_")), "{names:?}");

    let one = 1u16.to_ne_bytes();
    let seen = map(&kernel, "seen");
    assert_eq!((seen.key_bytes(), seen.value_bytes(), seen.most_entries(), seen.copies()), (2, 8, 8, 1));
    assert_eq!(seen.get(&one).expect("asked"), None);
    seen.set(&one, &40u64.to_ne_bytes()).expect("set");
    let frame = [0; 60];
    for _ in 0..2 {
        kernel.run(&frame).expect("it runs");
    }
    let value = |name: &str, key: &[u8]| number(&map(&kernel, name).get(key).expect("asked").expect("it is there"));
    assert_eq!((value("seen", &one), value("each", &[0; 4])), (42, 2));
    map(&kernel, "each").set(&[0; 4], &5u32.to_ne_bytes()).expect("set");
    let each = map(&kernel, "each");
    let copies = each.get(&[0; 4]).expect("asked").expect("an array");
    assert!(copies.len() == each.copies() && copies.iter().all(|copy| *copy == 5u32.to_ne_bytes()), "{copies:?}");

    // What does not fit is refused, by name.
    for (error, says) in [
        (seen.get(&[0; 3]).expect_err("a key of two bytes").to_string(), "a key of 2 bytes, not of 3"),
        (seen.set(&one, &[0; 4]).expect_err("a value of eight").to_string(), "a value of 8 bytes, not of 4"),
        (map(&kernel, "said").get(&[]).expect_err("no keys").to_string(), "no entries to look up"),
        (map(&kernel, "each").set(&[9; 4], &[0; 4]).expect_err("no such entry").to_string(), "\"each\""),
        (map(&kernel, "each").remove(&[0; 4]).expect_err("arrays stay").to_string(), "\"each\""),
    ] {
        assert!(error.contains(says), "{says:?}: {error}");
    }
    for n in 2..9u16 {
        seen.set(&n.to_ne_bytes(), &[1; 8]).expect("there is room");
    }
    assert!(seen.set(&9u16.to_ne_bytes(), &[1; 8]).is_err(), "it is full");
    let mut met = 0;
    seen.each(|key, values| {
        met += usize::from(key.len() == 2 && values.len() == 1);
        true
    })
    .expect("read");
    assert_eq!(met, 8);
    assert!(seen.remove(&2u16.to_ne_bytes()).expect("removed") && !seen.remove(&2u16.to_ne_bytes()).expect("gone"));

    // The same again has the same maps, what is in them included; another shape begins anew, and so do globals.
    assert_eq!(install(&kernel, &object_, false), ["each", "said", "seen"]);
    assert_eq!(value("seen", &one), 42);
    kernel.run(&frame).expect("it runs");
    assert_eq!((value("seen", &one), value(".bss", &[0; 4])), (43, 1));
    assert_eq!(install(&kernel, &larger, false), ["each", "said"]);
    assert_eq!((map(&kernel, "seen").most_entries(), map(&kernel, "seen").get(&one).expect("asked")), (16, None));
    assert_eq!(install(&kernel, &larger, true), Vec::<String>::new());
    assert_eq!(value("each", &[0; 4]), 0, "all anew, when asked for");
}

/// A user's program on two interfaces: one program to whoever asks, with one set of maps and globals.
#[test]
fn on_two_interfaces_a_program_has_one_set_of_maps_and_comes_and_goes_on_both() {
    require_root!();
    let Some(object) = object(8) else { return };
    let classifier = classifier(4);
    let company = Company::default();
    let setup = Setup { company: Some(&company), ..Setup::new(&classifier) };
    let first = KernelSteer::load(&setup).expect("it loads");
    let early = first.prepare("early", &object).expect("it loads");
    let second = KernelSteer::load(&Setup { several_buffers: true, ..setup }).expect("it loads");
    let refusal = first.install(UserSlot::After, early).expect_err("it is not for both").to_string();
    assert!(refusal.contains("prepare it again"), "{refusal}");
    assert_eq!((first.installed(UserSlot::After), second.installed(UserSlot::After)), (None, None));

    let frame = [0; 60];
    let run =
        |n: u64| (0..n).for_each(|_| [&first, &second].into_iter().for_each(|k| _ = k.run(&frame).expect("it runs")));
    let total =
        |kernel: &KernelSteer| number(&map(kernel, ".bss").get(&0u32.to_ne_bytes()).expect("it is read").expect("one"));
    let seen =
        |kernel: &KernelSteer| number(&map(kernel, "seen").get(&1u16.to_ne_bytes()).expect("it is read").expect("one"));
    assert_eq!(install(&first, &object, false), Vec::<String>::new());
    assert_eq!(second.installed(UserSlot::After).as_deref(), Some("counting"));
    map(&second, "seen").set(&1u16.to_ne_bytes(), &0u64.to_ne_bytes()).expect("there is room");
    run(5);
    assert_eq!((seen(&first), seen(&second), total(&first), total(&second)), (10, 10, 10, 10), "packets of both");
    // Another version keeps the maps, whoever installs it; globals begin anew.
    assert_eq!(install(&second, &object, false), ["each", "said", "seen"]);
    run(2);
    assert_eq!((seen(&first), total(&first)), (14, 4));
    assert!(
        KernelSteer::load(&setup).map(drop).expect_err("it would be without").to_string().contains("user's program")
    );
    assert_eq!(first.take_out(UserSlot::After).expect("it goes").expect("it was there").name(), "counting");
    run(1);
    for kernel in [&first, &second] {
        let counts = kernel.counts(0).expect("counters");
        assert_eq!((counts.seen, counts.straight, counts.returned), (8, 1, 7), "without one again");
    }
    // One goes, and the other goes on.
    install(&first, &object, true);
    drop(first);
    second.run(&frame).expect("it runs");
    assert_eq!((second.counts(0).expect("counters").returned, total(&second)), (8, 1));
}
