//! What a packet costs over the number of rings, over the number of conversations, and over annotation bytes: the yard's
//! dispatcher and its consumer by turns on one core, every shape in every round.
//!
//! Conversations are drawn anew before each round out of so many as the curve says: what comes through is a sample of them,
//! and what a yard remembered of each would show as a cache that no longer holds it.

use std::cell::RefCell;
use std::sync::Arc;

use flowyard::port::traffic::Mix;

use crate::figures::{self, ratio};
use crate::packets::{COUNT, FLOWS, Packets, is_ordinary};
use crate::pipeline::alone::{self, Shape, USUAL};
use crate::pipeline::shipped;
use crate::rounds::{self, Contender, Setting};

type Shared = Arc<Packets>;

/// Packets of a set, where there are several.
const FEW: usize = COUNT / 4;

/// Runs and prints.
pub fn run(setting: &Setting) {
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let renew = |packets: &mut Shared| {
        Arc::get_mut(packets).expect("no yard is left between rounds").shuffle();
    };
    let rings = |name, rings, turns_alone| {
        Contender::new(name, move |p: &Shared| alone::measure_as(p, Shape { rings, turns_alone, ..USUAL }))
    };
    let contenders = [
        rings("1 ring", 1, true),
        rings("2 rings", 2, true),
        rings("4 rings", 4, true),
        rings("8 rings", 8, true),
        rings("16 rings", 16, true),
        rings("32 rings", 32, true),
        rings("64 rings", 64, true),
        rings("1 ring and its reader", 1, false),
        rings("64 rings and one reader of all", 64, false),
    ];
    let outcome = rounds::run(setting, false, &mut packets, renew, &contenders);
    let ratios = [(2, 0), (4, 0), (5, 0), (6, 0), (8, 7)].map(|(many, one)| ratio(many, one));
    figures::print("The dispatcher over rings", "packet", &outcome, &ratios);

    let annotated =
        |name, annotation| Contender::new(name, move |p: &Shared| alone::measure_as(p, Shape { annotation, ..USUAL }));
    let contenders = [
        annotated("no annotation", 0),
        annotated("64 bytes", 64),
        annotated("128 bytes", 128),
        annotated("256 bytes", 256),
    ];
    let outcome = rounds::run(setting, false, &mut packets, renew, &contenders);
    let ratios = [1, 2, 3].map(|at| ratio(at, 0));
    figures::print("Over annotation bytes that nobody touches", "packet", &outcome, &ratios);
    if let Some(core) = setting.other {
        annotations(setting, core, &mut packets, renew);
    }
    drop(packets);
    conversations(setting);
}

/// Two cores: untouched, and written by the dispatcher's function and read by the consumer.
fn annotations(setting: &Setting, core: usize, packets: &mut Shared, renew: impl FnMut(&mut Shared)) {
    let run = |name, annotation, touched| {
        Contender::new(name, move |p: &Shared| shipped::measure_annotated(p, core, annotation, touched))
    };
    let contenders = [
        run("no annotation", 0, 0),
        run("256 bytes, untouched", 256, 0),
        run("none, a function that is silent", 0, 1),
        run("64 bytes, written by a function and read", 64, 64),
        run("256 bytes, written by a function and read", 256, 256),
    ];
    let outcome = rounds::run(setting, true, packets, renew, &contenders);
    let ratios = [ratio(1, 0), ratio(3, 2), ratio(4, 2)];
    figures::print("Annotations on two cores", "packet", &outcome, &ratios);
}

/// Packets of few and of many conversations.
struct Set {
    mix: RefCell<Mix>,
    packets: Shared,
}

fn conversations(setting: &Setting) {
    let flows = [FLOWS, 32 << 10, 1 << 20, 10_000_000];
    let draw = |mix: &mut Mix| Arc::new(Packets::of(mix, FEW, is_ordinary));
    let set = |flows| {
        let mut mix = Packets::mix(flows, &[]);
        Set { packets: draw(&mut mix), mix: RefCell::new(mix) }
    };
    let mut sets = flows.map(set);
    let measure = |name, at: usize| Contender::new(name, move |sets: &[Set; 4]| alone::measure(&sets[at].packets));
    let contenders = [
        measure("1 thousand conversations", 0),
        measure("32 thousand", 1),
        measure("1 million", 2),
        measure("10 million", 3),
    ];
    let renew = |sets: &mut [Set; 4]| {
        for set in sets {
            set.packets = draw(&mut set.mix.borrow_mut());
            Arc::get_mut(&mut set.packets).expect("it was just made").shuffle();
        }
    };
    let outcome = rounds::run(setting, false, &mut sets, renew, &contenders);
    figures::print("Over conversations", "packet", &outcome, &[1, 2, 3].map(|at| ratio(at, 0)));
}
