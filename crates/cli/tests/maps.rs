//! The maps of a user's program in the kernel, listed, read and changed by name while packets come.

mod program;

use std::path::Path;
use std::process::{Command, Stdio};

use flowyard_testkit::net::{Namespace, Veth, skipped};
use program::*;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/bpf/by_vlan");

fn built(dir: &Path) -> Option<String> {
    if Command::new("clang").arg("--version").stdout(Stdio::null()).status().is_err() {
        skipped(module_path!(), line!(), "needs clang");
        return None;
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(SAMPLE).arg(format!("OUT={}", dir.display())).stdout(Stdio::null());
    assert!(make.status().is_ok_and(|status| status.success()), "the sample builds");
    Some(dir.join("by_vlan.bpf.o").display().to_string())
}

#[test]
fn maps_are_listed_read_and_changed_by_name() {
    flowyard_testkit::require_root!();
    let dir = tempfile::tempdir().expect("a directory");
    let Some(object) = built(dir.path()) else { return };
    let namespace = Namespace::new().expect("root may");
    namespace.veth(&Veth::default()).expect("root may");
    namespace.run(|| {
        let yard = Yard::start(dir.path(), &["xdp:fy0", "--steer", "kernel", "--quiet"]);
        let bpf = |args: &[&str]| yard.ctl(&[&["bpf"], args].concat());
        let good = |args: &[&str]| {
            let output = bpf(args);
            assert!(output.status.success(), "{args:?}: {}", errors(&output));
            json(&output)
        };
        assert_eq!(good(&["maps"]), serde_json::json!([]));
        good(&["load", "after", &object]);
        let maps = good(&["maps"]);
        let vlans =
            maps.as_array().and_then(|maps| maps.iter().find(|map| map["map"] == "vlans")).expect("it is listed");
        assert_eq!(
            (&vlans["slot"], &vlans["key_bytes"], &vlans["value_bytes"]),
            (&"after".into(), &4.into(), &8.into())
        );

        assert_eq!(good(&["map", "vlans", "set", "0x5", "hex:0200010000000000"])["key_number"], 5);
        assert_eq!(good(&["map", "after:vlans", "get", "5"])["value"], "hex:0200010000000000");
        let all = good(&["map", "vlans", "dump"]);
        assert!(all.as_array().is_some_and(|all| all.len() == 4096 && all[5]["value"] == "hex:0200010000000000"));
        // Another version of the program goes on with what was said.
        let again = good(&["load", "after", &object]);
        assert!(again["maps_kept"].as_array().is_some_and(|kept| kept.contains(&"vlans".into())), "{again:#}");
        assert_eq!(good(&["map", "vlans", "get", "5"])["value"], "hex:0200010000000000");
        assert_eq!(good(&["load", "after", &object, "--fresh"])["maps_kept"], serde_json::json!([]));
        assert_eq!(good(&["map", "vlans", "get", "5"])["value_number"], 0);
        for (args, says) in [
            (&["map", "vlan", "dump"][..], "after:vlans"),
            (&["map", "before:vlans", "dump"], "there is no map"),
            (&["map", "vlans", "get", "frog"], "hex:BYTES"),
            (&["map", "vlans", "get", "5000"], "no entry of that key"),
            (&["map", "vlans", "set", "5", "hex:00"], "8 bytes"),
            (&["map", "vlans", "remove", "5"], "vlans"),
        ] {
            let output = bpf(args);
            assert!(!output.status.success() && errors(&output).contains(says), "{args:?}: {}", errors(&output));
        }
        let (_, status, _) = yard.end();
        assert_eq!(status, 0);
    });
}
