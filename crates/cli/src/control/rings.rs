//! `/counters`, `/rings`, `/weights`, `/log-level`: the rings of a running yard, as JSON.

use std::sync::atomic::Ordering;

use flowyard::{Drop, Live, RingStatus};
use serde_json::{Map, Value, json};

use super::Yard;
use crate::log;

type Refused = (u16, String);

impl Yard {
    /// Group, number within it and state of every ring.
    fn each_ring(&self) -> Vec<(&str, u16, RingStatus)> {
        let names = self.groups.iter().flat_map(|(name, rings)| (0..*rings).map(move |ring| (name.as_str(), ring)));
        names.zip(self.rings.status()).map(|((group, ring), status)| (group, ring, status)).collect()
    }

    /// `GET /counters`.
    pub(super) fn counters(&self) -> Value {
        let sum = |f: fn(&Live) -> &std::sync::atomic::AtomicU64| -> u64 {
            self.live.iter().map(|l| f(l).load(Ordering::Relaxed)).sum()
        };
        let rings = self.each_ring().into_iter().map(|(group, ring, status)| {
            let counters = status.counters;
            let dropped: Map<_, _> =
                Drop::ALL.iter().map(|why| (why.name().to_owned(), json!(counters.dropped[*why as usize]))).collect();
            json!({"group": name(group), "ring": ring, "packets": counters.packets, "bytes": counters.bytes, "dropped": dropped})
        });
        let rings: Vec<Value> = rings.collect();
        json!({
            "received": sum(|l| &l.received), "bytes": sum(|l| &l.bytes), "delivered": sum(|l| &l.delivered),
            "dropped": sum(|l| &l.dropped), "aside": sum(|l| &l.aside), "rings": rings,
        })
    }

    /// `GET /rings`.
    pub(super) fn rings(&self) -> Value {
        let weights: Vec<Vec<u32>> =
            (0..self.groups.len()).map(|group| self.rings.weights(group).unwrap_or_default()).collect();
        let of = |group: &str| self.groups.iter().position(|(name, _)| name == group).unwrap_or_default();
        let rings = self.each_ring().into_iter().map(|(group, ring, status)| {
            json!({
                "group": name(group), "ring": ring, "weight": weights[of(group)].get(usize::from(ring)),
                "slots": status.slots, "held": status.held, "backlog": status.backlog,
                "consumer": if status.gone { "gone" } else { "there" },
                "packets": status.counters.packets, "dropped": status.counters.dropped_total(),
            })
        });
        rings.collect::<Vec<_>>().into()
    }

    /// `GET /weights`.
    pub(super) fn weights(&self) -> Value {
        let groups = self.groups.iter().enumerate();
        groups.map(|(at, (group, _))| json!({"group": name(group), "weights": self.rings.weights(at)})).collect()
    }

    /// `PUT /weights?group=NAME`: weights with commas between them.
    pub(super) fn reweigh(&self, group: Option<&str>, body: &[u8]) -> Result<Value, Refused> {
        let at = match group {
            None => 0,
            Some(group) => self.groups.iter().position(|(name, _)| name == group).ok_or_else(|| {
                let names: Vec<_> = self.groups.iter().map(|(name, _)| format!("{name:?}")).collect();
                (404, format!("there is no group {group:?}: there are {}", names.join(", ")))
            })?,
        };
        let text = String::from_utf8_lossy(body);
        let weights: Option<Vec<u32>> =
            text.trim().trim_matches(['[', ']']).split(',').map(|weight| weight.trim().parse().ok()).collect();
        let weights =
            weights.ok_or_else(|| (400, format!("{text:?} are no weights: write one number a ring, such as 2,1,1")))?;
        let moved = self.rings.reweigh(at, &weights).map_err(|e| (409, e.to_string()))?;
        self.reweighed.store(true, Ordering::Relaxed); // read once the yard has ended
        tracing::info!("weights are {weights:?} now: {moved} of 4096 buckets moved");
        Ok(json!({"weights": weights, "moved": moved, "of": flowyard::steer::Table::BUCKETS}))
    }
}

/// `GET` and `PUT /log-level`.
pub(super) fn log_level(new: Option<&[u8]>) -> Result<Value, Refused> {
    if let Some(new) = new {
        log::set(log::Level::of_name(String::from_utf8_lossy(new).trim()).map_err(|why| (400, why))?);
    }
    Ok(json!({"level": log::level().name()}))
}

/// A yard without groups has one without a name.
fn name(group: &str) -> Value {
    if group.is_empty() { Value::Null } else { group.into() }
}
