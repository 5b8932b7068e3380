//! What the program in the kernel does, told apart from what it does not.

use flowyard_steer::{Classifier, FlowHash, NonIp, Policy};

use crate::KernelError;

/// The seed of a classifier that the program does: the default policy with the default hash. Any other is
/// refused by name.
pub(crate) fn seed_of(classifier: &Classifier) -> Result<u64, KernelError> {
    let (policy, plain) = (&classifier.policy, Policy::default());
    let slow = "leave it at its default, or steer in user space";
    let fields = [
        (policy.key == plain.key, "key", format!("{:?}", policy.key)),
        (policy.max_depth == plain.max_depth, "max_depth", policy.max_depth.to_string()),
        (policy.max_steps == plain.max_steps, "max_steps", policy.max_steps.to_string()),
        (policy.leave_alone.is_empty(), "leave_alone", "layers in it".into()),
        (policy.key_vlan == plain.key_vlan, "key_vlan", policy.key_vlan.to_string()),
        (policy.key_vni == plain.key_vni, "key_vni", policy.key_vni.to_string()),
        (policy.key_ids == plain.key_ids, "key_ids", "identifiers in it".into()),
        (policy.fragments == plain.fragments, "fragments", format!("{:?}", policy.fragments)),
        (policy.non_ip == NonIp::MacPair, "non_ip", format!("{:?}", policy.non_ip)),
        (policy.udp_tunnels == plain.udp_tunnels, "udp_tunnels", "ports of its own".into()),
    ];
    if let Some((_, name, value)) = fields.iter().find(|field| !field.0) {
        return Err(KernelError::Policy { what: format!("policy.{name} = {value}"), remedy: slow });
    }
    match classifier.hash {
        FlowHash::Default { seed } => Ok(seed),
        FlowHash::Toeplitz(_) => Err(KernelError::Policy {
            what: "the Toeplitz hash".into(),
            remedy: "use the default hash, or steer in user space",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_steer::{Fragments, KeyId, KeyLevel, Layer, SYMMETRIC_KEY, Table, ToeplitzKey};

    #[test]
    fn what_the_program_does_not_do_is_refused_by_name() {
        let plain = Classifier {
            policy: Policy::default(),
            hash: FlowHash::Default { seed: 77 },
            table: Table::even(4).expect("4 rings"),
        };
        assert_eq!(seed_of(&plain).expect("the default policy"), 77);
        let mut ports = Policy::default();
        ports.udp_tunnels.set(1, Layer::Vxlan, false);
        let default = Policy::default;
        for (name, policy) in [
            ("key", Policy { key: KeyLevel::Outermost, ..default() }),
            ("max_depth", Policy { max_depth: 2, ..default() }),
            ("max_steps", Policy { max_steps: 2, ..default() }),
            ("leave_alone", Policy { leave_alone: [Layer::Gre].into_iter().collect(), ..default() }),
            ("key_vlan", Policy { key_vlan: true, ..default() }),
            ("key_vni", Policy { key_vni: true, ..default() }),
            ("key_ids", Policy { key_ids: [KeyId::Mpls].into_iter().collect(), ..default() }),
            ("fragments", Policy { fragments: Fragments::AddressesOnly, ..default() }),
            ("non_ip", Policy { non_ip: NonIp::Ring(1), ..default() }),
            ("udp_tunnels", ports),
        ] {
            let refusal = seed_of(&Classifier { policy, ..plain.clone() }).expect_err(name).to_string();
            assert!(refusal.contains(&format!("policy.{name} =")) && refusal.contains("user space"), "{refusal}");
        }
        let toeplitz = FlowHash::Toeplitz(ToeplitzKey::new(&SYMMETRIC_KEY).expect("a key"));
        let refusal = seed_of(&Classifier { hash: toeplitz, ..plain }).expect_err("Toeplitz").to_string();
        assert!(refusal.contains("Toeplitz"), "{refusal}");
    }
}
