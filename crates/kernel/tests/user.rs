//! The user's slots: what stands in them runs, may say what it likes, is replaced without a gap, and what
//! the verifier refuses changes nothing.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{can_ask, classifier, load, load_asking};
use flowyard_kernel::{Action, Answer, CardWord, KernelError, KernelSteer, Place, Setup, UserSlot};
use flowyard_mem::flags;
use flowyard_testkit::net::skipped;
use flowyard_testkit::require_root;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/bpf/by_vlan");
const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf");

fn has_clang(line: u32) -> bool {
    let there = Command::new("clang").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        skipped(module_path!(), line, "needs clang");
    }
    there
}

/// The object of a program of which only the body is told.
fn compile(body: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, object) = (dir.path().join("user.bpf.c"), dir.path().join("user.bpf.o"));
    let text = format!(
        "#include \"flowyard.bpf.h\"\n\
         static __always_inline int user(struct xdp_md *ctx) {{ {body} }}\n\
         FLOWYARD_PROGRAM(user)\n\
         char _license[] SEC(\"license\") = \"Dual MIT/GPL\";\n"
    );
    std::fs::write(&source, text).expect("the source is written");
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-I", INCLUDE]);
    clang.arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH));
    let built = clang.arg("-c").arg(source).arg("-o").arg(&object).status().expect("clang runs");
    assert!(built.success(), "{body}");
    std::fs::read(object).expect("an object")
}

/// A TCP packet, in a VLAN if there is one.
fn frame(vlan: Option<u16>) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 4, 1, 0, 80]);
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
    frame
}

fn tag(kernel: &KernelSteer, frame: &[u8]) -> flowyard_mem::Tag {
    match kernel.run(frame).expect("it runs").answer {
        Some(Answer::Ring(tag)) => tag,
        other => panic!("{other:?}"),
    }
}

fn install(kernel: &KernelSteer, slot: UserSlot, name: &str, object: &[u8]) {
    let prepared = kernel.prepare(name, object).unwrap_or_else(|e| panic!("{e}"));
    kernel.install(slot, prepared).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_sample_chooses_rings_by_vlan_and_drops() {
    require_root!();
    if !has_clang(line!()) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut make = Command::new("make");
    make.arg("-C").arg(SAMPLE).arg(format!("OUT={}", dir.path().display()));
    assert!(make.status().is_ok_and(|status| status.success()), "the sample builds");
    let object = std::fs::read(dir.path().join("by_vlan.bpf.o")).expect("an object");
    for several_buffers in [false, true] {
        let kernel = load(&classifier(16), several_buffers);
        let plain = tag(&kernel, &frame(Some(5)));
        install(&kernel, UserSlot::After, "by_vlan", &object);
        assert_eq!(kernel.installed(UserSlot::After).as_deref(), Some("by_vlan"));

        // It says nothing yet, but counts.
        let first = tag(&kernel, &frame(Some(5)));
        assert_eq!(flowyard_mem::Tag { user: first.user, ..plain }, first);
        assert!(first.user >= 1);

        // The application's word, through the map by its name.
        let map = kernel.user_map(UserSlot::After, "vlans").expect("the sample's map");
        let mut vlans = aya::maps::Array::<_, [u8; 8]>::try_from(aya::maps::Map::Array(map)).expect("an array");
        let ring = plain.ring ^ 1;
        let [low, high] = ring.to_ne_bytes();
        vlans.set(5, [low, high, 1, 0, 0, 0, 0, 0], 0).expect("it is written");
        vlans.set(6, [0, 0, 1, 1, 0, 0, 0, 0], 0).expect("it is written");
        assert_eq!(tag(&kernel, &frame(Some(5))).ring, ring);
        assert_eq!(tag(&kernel, &frame(Some(7))).ring, plain.ring);
        assert_eq!(tag(&kernel, &frame(None)).ring, plain.ring);
        assert_eq!(kernel.run(&frame(Some(6))).expect("it runs").action, Action::Drop);

        // Each packet is counted once, by what became of it.
        let counts = kernel.counts(0).expect("counters");
        assert_eq!((counts.seen, counts.steered, counts.straight, counts.returned), (6, 6, 1, 4));
        assert_eq!((counts.passed, counts.by_user(), counts.verdicts), (5, 1, [0, 1, 0, 0, 0]));
        let missing = kernel.user_map(UserSlot::After, "absent").expect_err("no such map").to_string();
        assert!(missing.contains("absent") && missing.contains("vlans"), "{missing}");

        kernel.take_out(UserSlot::After).expect("it goes").expect("it was there");
        assert_eq!(tag(&kernel, &frame(Some(5))), plain);
    }
}

#[test]
fn a_program_before_steering_may_mark_the_tag_or_take_the_packet() {
    require_root!();
    if !has_clang(line!()) {
        return;
    }
    let kernel = load(&classifier(16), false);
    let plain = tag(&kernel, &frame(None));
    let mark = "struct flowyard_tag *tag = flowyard_make_tag(ctx);\n\
                if (tag) tag->user = 42;\n\
                return flowyard_go_on(ctx, FLOWYARD_STEER);";
    install(&kernel, UserSlot::Before, "mark", &compile(mark));
    assert_eq!(tag(&kernel, &frame(None)), flowyard_mem::Tag { user: 42, ..plain });
    // Metadata of another length than a head makes way for it.
    let shorter = "if (bpf_xdp_adjust_meta(ctx, -16)) return XDP_ABORTED;\n\
                  return flowyard_go_on(ctx, FLOWYARD_STEER);";
    install(&kernel, UserSlot::Before, "shorter", &compile(shorter));
    assert_eq!(tag(&kernel, &frame(None)), plain);
    install(&kernel, UserSlot::Before, "pass", &compile("(void)ctx; return XDP_PASS;"));
    let run = kernel.run(&frame(None)).expect("it runs");
    assert_eq!((run.action, run.answer), (Action::Pass, None));
    let counts = kernel.counts(0).expect("counters");
    assert_eq!((counts.seen, counts.steered, counts.by_user(), counts.verdicts), (4, 3, 1, [0; 5]));
}

#[test]
fn what_the_card_told_is_there_for_both_and_stays() {
    require_root!();
    if !has_clang(line!()) || !can_ask(line!()) {
        return;
    }
    let classifier = classifier(16);
    let (kernel, _interface) = load_asking(&classifier, false);
    let flags = flags::HARDWARE_TIME | flags::CARD_HASH | flags::VLAN_STRIPPED;
    let told = CardWord { time_ns: 77, hash: 0x0a0b_0c0d, vlan: 5, flags };
    let run = |kernel: &KernelSteer| {
        let run = kernel.run_told(&frame(None), &told).expect("it runs");
        match run.answer {
            Some(Answer::Ring(tag)) => (tag, run.told),
            other => panic!("{other:?}"),
        }
    };
    let plain = run(&kernel);
    assert_eq!((plain.0.vlan, plain.1), (5, Some(told)));
    let mark = "struct flowyard_tag *tag = flowyard_make_tag(ctx);\n\
                struct flowyard_card *card = flowyard_card(ctx);\n\
                if (tag && card) tag->user = card->time_ns;\n\
                return flowyard_go_on(ctx, FLOWYARD_STEER);";
    install(&kernel, UserSlot::Before, "mark", &compile(mark));
    assert_eq!(run(&kernel), (flowyard_mem::Tag { user: 77, ..plain.0 }, Some(told)));
    let by_card = "struct flowyard_tag *tag = flowyard_tag(ctx);\n\
                   struct flowyard_card *card = flowyard_card(ctx);\n\
                   if (tag && card) { flowyard_set_hash(tag, card->hash); flowyard_to_ring(tag, card->vlan); }\n\
                   return flowyard_go_on(ctx, FLOWYARD_DELIVER);";
    install(&kernel, UserSlot::After, "by_card", &compile(by_card));
    let tag = flowyard_mem::Tag { user: 77, hash: told.hash, ring: 5, hash_version: 0, ..plain.0 };
    assert_eq!(run(&kernel), (tag, Some(told)));
    kernel.take_out(UserSlot::After).expect("it goes");
    // One that takes it away has it taken away, and the head says so.
    let takes = "if (bpf_xdp_adjust_meta(ctx, 16)) return XDP_ABORTED;\n\
                 return flowyard_go_on(ctx, FLOWYARD_STEER);";
    install(&kernel, UserSlot::Before, "takes", &compile(takes));
    let (tag, left) = run(&kernel);
    assert_eq!((tag.hash, tag.ring, left), (plain.0.hash, plain.0.ring, None));
}

/// Rings without dissection: the user's program makes the head itself.
#[test]
fn a_program_before_steering_may_deliver() {
    require_root!();
    if !has_clang(line!()) {
        return;
    }
    let kernel = load(&classifier(16), false);
    let body = "struct flowyard_tag *tag = flowyard_make_tag(ctx);\n\
                if (!tag) return flowyard_verdict(ctx, XDP_DROP);\n\
                flowyard_set_hash(tag, 5); flowyard_to_ring(tag, 11);\n\
                return flowyard_go_on(ctx, FLOWYARD_DELIVER);";
    install(&kernel, UserSlot::Before, "by itself", &compile(body));
    let expected = flowyard_mem::Tag { hash: 5, ring: 11, ..flowyard_mem::Tag::default() };
    assert_eq!(tag(&kernel, &frame(None)), expected);
    let counts = kernel.counts(0).expect("counters");
    assert_eq!((counts.seen, counts.steered, counts.returned, counts.passed, counts.by_user()), (1, 0, 1, 1, 0));
}

/// A marked packet keeps its mark, and what the user wrote, unless the user decides.
#[test]
fn marked_packets_are_the_users_as_well() {
    require_root!();
    if !has_clang(line!()) {
        return;
    }
    let kernel = load(&classifier(16), false);
    let mut strange = frame(None);
    strange[12..14].copy_from_slice(&[0x22, 0xf3]); // TRILL
    let body = |decide: &str| {
        format!(
            "struct flowyard_tag *tag = flowyard_tag(ctx);\n\
             if (tag && flowyard_is_marked(tag)) {{ tag->user = 9; {decide} }}\n\
             return flowyard_go_on(ctx, FLOWYARD_DELIVER);"
        )
    };
    install(&kernel, UserSlot::After, "note", &compile(&body("")));
    let answer = kernel.run(&strange).expect("it runs").answer;
    assert!(
        matches!(answer, Some(Answer::Marked(flowyard_kernel::Mark::Protocol, tag)) if tag.user == 9),
        "{answer:?}"
    );
    install(&kernel, UserSlot::After, "decide", &compile(&body("flowyard_to_ring(tag, 3);")));
    assert_eq!((tag(&kernel, &strange).ring, tag(&kernel, &strange).user), (3, 9));
}

#[test]
fn what_the_verifier_refuses_changes_nothing() {
    require_root!();
    if !has_clang(line!()) {
        return;
    }
    let kernel = load(&classifier(16), false);
    let seven = "struct flowyard_tag *tag = flowyard_tag(ctx);\n\
                 if (tag) tag->user = 7;\n\
                 return flowyard_go_on(ctx, FLOWYARD_DELIVER);";
    install(&kernel, UserSlot::After, "seven", &compile(seven));
    // Reads a byte without asking whether it is there.
    let blind = compile("return *(__u8 *)(long)ctx->data ? XDP_PASS : XDP_DROP;");
    let refusal = kernel.prepare("blind", &blind).expect_err("it reads what may not be there");
    let said = refusal.to_string();
    let KernelError::Refused { program, log, .. } = refusal else { panic!("{said}") };
    assert!(program == "user_one" && log.contains("invalid access to packet"), "{log}");
    assert!(said.contains("invalid access to packet") && said.lines().count() < 20, "{said}");
    // An object without a program, and none at all.
    for object in [&b"nothing"[..], &[]] {
        let refusal = kernel.prepare("nothing", object).expect_err("no object").to_string();
        assert!(refusal.contains("nothing") && refusal.contains("clang"), "{refusal}");
    }
    assert_eq!(kernel.installed(UserSlot::After).as_deref(), Some("seven"));
    assert_eq!(tag(&kernel, &frame(None)).user, 7);
    no_name_is_left();
}

/// What maps are called while an object is loaded is gone afterwards: other tests load as well meanwhile.
fn no_name_is_left() {
    let mine = format!("-{}-", std::process::id());
    let names = || std::fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten().map(|entry| entry.file_name());
    for _ in 0..500 {
        if !names().any(|name| name.to_string_lossy().contains(&mine)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{:?}", names().collect::<Vec<_>>());
}

/// While packets run, two programs change places 10,000 times: each packet goes through exactly one.
#[test]
fn programs_change_places_under_load_without_a_gap() {
    require_root!();
    if !has_clang(line!()) {
        return;
    }
    let swaps = 10_000;
    let kernel = load(&classifier(64), false);
    let by = |version: u32| {
        compile(&format!(
            "struct flowyard_tag *tag = flowyard_tag(ctx);\n\
             if (!tag) return flowyard_verdict(ctx, XDP_ABORTED);\n\
             tag->user = {version}; flowyard_set_hash(tag, {version} * 1000); flowyard_to_ring(tag, {version} * 7);\n\
             return flowyard_go_on(ctx, FLOWYARD_DELIVER);"
        ))
    };
    install(&kernel, UserSlot::After, "one", &by(1));
    let mut next = kernel.prepare("two", &by(2)).expect("it is accepted");
    let (done, frame) = (AtomicBool::new(false), frame(None));
    let (mut seen, mut changes) = ([0u64; 3], 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..swaps {
                let old = kernel.install(UserSlot::After, next).expect("it is installed");
                next = old.expect("the slot is never empty");
            }
            done.store(true, Ordering::Release); // pairs with the load below
        });
        let mut last = 0;
        while !done.load(Ordering::Acquire) {
            let tag = tag(&kernel, &frame);
            let version = tag.user;
            assert!(matches!(version, 1 | 2), "{tag:?}");
            assert_eq!((tag.ring, tag.hash), (version as u16 * 7, version as u32 * 1000), "by one version alone");
            seen[version as usize] += 1;
            changes += u64::from(version != last);
            last = version;
        }
    });
    let counts = kernel.counts(0).expect("counters");
    let runs = seen[1] + seen[2];
    println!("{swaps} swaps, {runs} packets, {} by the first, {} by the second, {changes} changes", seen[1], seen[2]);
    assert_eq!((counts.seen, counts.steered, counts.returned, counts.straight), (runs, runs, runs, 0));
    assert!(seen[1] > 0 && seen[2] > 0);
}

#[test]
fn numbers_out_of_range_are_refused() {
    require_root!();
    let classifier = classifier(16);
    let kernel = KernelSteer::load(&Setup { queues: 3, ..Setup::new(&classifier) }).expect("it loads");
    assert_eq!(kernel.socket_index(0, Place::Ring(15)).expect("a place"), 15);
    assert_eq!(kernel.socket_index(2, Place::Ring(1)).expect("a place"), 35);
    assert_eq!(kernel.socket_index(1, Place::Marked).expect("a place"), 33);
    assert!(kernel.socket_index(3, Place::Marked).is_err() && kernel.socket_index(0, Place::Ring(16)).is_err());
    let fewer = flowyard_steer::Table::even(8).expect("8 rings");
    let refusal = kernel.set_table(&fewer).expect_err("rings differ").to_string();
    assert!(refusal.contains("8"), "{refusal}");
    for queues in [0, u32::MAX] {
        assert!(KernelSteer::load(&Setup { queues, ..Setup::new(&classifier) }).is_err());
    }
    assert!(KernelSteer::load(&Setup { fragments: 1, ..Setup::new(&classifier) }).is_err());
    let shifted: Vec<u32> = (0..16).map(|ring| u32::from(ring == 9)).collect();
    kernel.set_table(&flowyard_steer::Table::weighted(&shifted).expect("weights")).expect("16 rings");
    assert_eq!(tag(&kernel, &frame(None)).ring, 9);
}
