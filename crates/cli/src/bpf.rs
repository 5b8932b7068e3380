//! The user's own eBPF programs in a yard that steers in the kernel, as the control socket shows them.
//!
//! ```text
//! GET    /bpf                    what stands in the slots, and what the kernel counted
//! PUT    /bpf/before?name=NAME   load the object file in the body and put it into the slot; /bpf/after alike
//! DELETE /bpf/before             take it out; /bpf/after alike
//! ```
//!
//! A program that the verifier refuses leaves everything as it is.

use std::sync::{Arc, Mutex, PoisonError};

use flowyard::kernel::{Counts, KernelSteer, Mark, UserSlot};
use serde_json::{Map, Value, json};
use tiny_http::Method;

use crate::control::Answer;

/// The steering program of a yard, if it has one.
pub type Kernel = Option<Arc<Mutex<KernelSteer>>>;

const SLOTS: [(UserSlot, &str); 2] = [(UserSlot::Before, "before"), (UserSlot::After, "after")];

/// Whether a program of the user's stands in a slot.
pub fn has_own(kernel: &Kernel) -> bool {
    kernel.as_ref().is_some_and(|kernel| {
        let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
        SLOTS.iter().any(|(slot, _)| kernel.installed(*slot).is_some())
    })
}

/// Answers a request.
pub fn respond(kernel: &Kernel, method: &Method, slot: Option<&str>, name: Option<&str>, body: &[u8]) -> Answer {
    let Some(kernel) = kernel else {
        return Err((409, "this yard steers in user space: start it with --steer kernel".into()));
    };
    let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = |value: Value| Ok((200, "application/json", format!("{value:#}\n").into_bytes()));
    let Some(word) = slot else {
        return match method {
            Method::Get => answer(list(&kernel)),
            _ => Err((405, format!("/bpf does not take {method}"))),
        };
    };
    let Some((slot, _)) = SLOTS.into_iter().find(|(_, known)| *known == word) else {
        return Err((404, format!("there is no slot {word:?}: before, after")));
    };
    let refused = |error: flowyard::kernel::KernelError| (409, error.to_string());
    match method {
        Method::Put => {
            let name = name.unwrap_or("program");
            let prepared = kernel.prepare(name, body).map_err(refused)?;
            let maps: Vec<String> = prepared.maps().map(str::to_owned).collect();
            let old = kernel.install(slot, prepared).map_err(refused)?;
            let old = old.map(|old| old.name().to_owned());
            answer(json!({"slot": word, "program": name, "maps": maps, "instead_of": old}))
        }
        Method::Delete => {
            let old = kernel.take_out(slot).map_err(refused)?;
            answer(json!({"slot": word, "taken_out": old.map(|old| old.name().to_owned())}))
        }
        _ => Err((405, format!("/bpf/{word} does not take {method}"))),
    }
}

fn list(kernel: &KernelSteer) -> Value {
    let slots: Vec<Value> =
        SLOTS.iter().map(|(slot, word)| json!({"slot": word, "program": kernel.installed(*slot)})).collect();
    let mut sum = Counts::default();
    let mut by_user = 0;
    for counts in (0..kernel.queues()).filter_map(|queue| kernel.counts(queue).ok()) {
        sum.seen += counts.seen;
        sum.redirected += counts.redirected;
        sum.passed += counts.passed;
        sum.too_long += counts.too_long;
        sum.no_room += counts.no_room;
        sum.verdicts.iter_mut().zip(counts.verdicts).for_each(|(sum, n)| *sum += n);
        sum.marked.iter_mut().zip(counts.marked).for_each(|(sum, n)| *sum += n);
        by_user += counts.by_user();
    }
    let marked: Map<_, _> =
        Mark::ALL.iter().map(|mark| (mark.name().to_owned(), json!(sum.marked_by(*mark)))).collect();
    let actions = ["aborted", "dropped", "passed", "sent-back", "redirected"];
    let verdicts: Map<_, _> =
        actions.iter().zip(sum.verdicts).map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
    json!({
        "slots": slots, "seen": sum.seen, "redirected": sum.redirected, "passed": sum.passed, "too_long": sum.too_long,
        "without_metadata": sum.no_room, "ended_in_users_program": by_user, "verdicts": verdicts, "marked": marked,
    })
}
