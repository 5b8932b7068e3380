//! Native plug-ins: steering functions in shared objects, behind the C interface of
//! [`flowyard_plugin.h`](https://github.com/flowyard/flowyard/blob/main/crates/yard/include/flowyard_plugin.h).
//!
//! ```text
//! file ── read once ──▶ checked ──▶ sealed copy in memory ── dlopen ──▶ library ── open ──▶ an instance a dispatcher
//! ```
//!
//! [`load`] reads the file once, into memory of our own that nobody can change: what happens to the file later
//! does nothing to what runs, and the same path loaded again is the new file, not the old one. Each
//! instance keeps its library loaded until it is closed, so old and new versions work side by side
//! while the dispatchers change over one by one.
//!
//! A batch is handed over as it lies, and the header's inline functions find packets in it: what a plug-in does not look
//! at costs nothing (bench/README.md has figures), and nothing is allocated. The price is trust: a plug-in has all
//! rights of the process, and one that crashes ends it.
//!
//! ```no_run
//! use flowyard::{Yard, YardConfig, plugin};
//!
//! let tables = |_: &str| None;
//! let function = plugin::load("subscriber.so".as_ref(), "users = 10.0.0.0/8", tables)?;
//! let config = YardConfig { function: Some(function), ..YardConfig::default() };
//! let (yard, readers) = Yard::open(&config, &["xdp:eth0".parse()?])?;
//! let running = yard.start()?;
//! // Some days later, a new version in the same place:
//! running.functions().reload(Some(&plugin::load("subscriber.so".as_ref(), "users = 10.0.0.0/8", tables)?))?;
//! # drop(readers);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[path = "../../include/flowyard_plugin.rs"]
#[allow(unreachable_pub, reason = "plug-ins use the same file")]
mod abi;
mod file;
mod host;
mod instance;
mod library;

use std::path::Path;
use std::sync::Arc;

use flowyard_mem::tables::Table;

use crate::function::{Function, FunctionError};
use host::{Find, Host};
use instance::Instance;
use library::Library;

/// What stands before the path where a function is named in text: `plugin:/usr/lib/flowyard/subscriber.so`.
pub const SCHEME: &str = "plugin:";

/// The path in `plugin:PATH`; `None` if `text` names another kind of function.
pub fn path(text: &str) -> Option<&Path> {
    text.strip_prefix(SCHEME).map(Path::new)
}

/// The function of the plug-in at `path`. Each of its instances is opened with `config`, text that the plug-in
/// alone understands, and finds shared tables by `tables`. The function has the name that the plug-in
/// gives itself.
///
/// Runs the plug-in's code, its constructors at once: load only what you would run as this user.
///
/// # Errors
/// The file cannot be read, or is no plug-in for this yard: says which file, what of it, and the way out.
/// What its `open` and `check` refuse is said where instances are made: by `Yard::open` and `reload`.
pub fn load(
    path: &Path,
    config: &str,
    tables: impl Fn(&str) -> Option<Table> + Send + Sync + 'static,
) -> Result<Function, FunctionError> {
    let error = |why| FunctionError::new(format!("{SCHEME}{}", path.display()), why);
    let library = Arc::new(Library::load(path).map_err(error)?);
    let (config, tables): (Arc<str>, Arc<Find>) = (config.into(), Arc::new(tables));
    let name = library.name().to_owned();
    Ok(Function::new(&name, move |surroundings| {
        let host = Host::new(surroundings, tables.clone());
        let instance = Instance::open(&library, host, &config).map_err(|why| {
            FunctionError::new(format!("{} ({SCHEME}{})", library.name(), library.path().display()), why)
        })?;
        Ok(Box::new(instance))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_mem::{Clock, flags, tables::Lookup};
    use flowyard_steer::TunnelKind;
    use std::mem::{align_of, offset_of};

    #[test]
    fn text_names_a_path() {
        assert_eq!(path("plugin:/a b.so"), Some(Path::new("/a b.so")));
        assert_eq!((path("rules:a.toml"), path("plugin")), (None, None));
    }

    #[test]
    fn the_interface_is_what_the_yard_has_inside() {
        use crate::function::RawVerdict;
        use crate::outlets::Segment;
        use flowyard_mem::Tag;
        macro_rules! same {
            ($ours:ty, $theirs:ty: $($field:ident)*) => {
                assert_eq!((size_of::<$ours>(), 0), (size_of::<$theirs>(), align_of::<$ours>() % align_of::<$theirs>()));
                $(assert_eq!(offset_of!($ours, $field), offset_of!($theirs, $field), stringify!($field));)*
            };
        }
        same!(Tag, abi::Tag: hash ring stop depth outer_l3 inner_l3 inner_l4 protocol kind tunnel_id tunnel_kind
              hash_version vlan user time_ns flags wire_len len port queue card_hash stripped_vlan link);
        same!(RawVerdict, abi::Verdict: kind zero ring value slice pull zero2);
        same!(Segment, abi::Place: buffer offset len);
        let flags = [
            (flags::CHECKSUM_PARTIAL, abi::flags::CHECKSUM_PARTIAL),
            (flags::CHECKSUM_VALID, abi::flags::CHECKSUM_VALID),
            (flags::GSO, abi::flags::GSO),
            (flags::VLAN_STRIPPED, abi::flags::VLAN_STRIPPED),
            (flags::TRUNCATED, abi::flags::TRUNCATED),
            (flags::HARDWARE_TIME, abi::flags::HARDWARE_TIME),
            (flags::CARD_HASH, abi::flags::CARD_HASH),
            (flags::FRAGMENT_FALLBACK, abi::flags::FRAGMENT_FALLBACK),
            (flags::OUTGOING, abi::flags::OUTGOING),
            (flags::VLAN_SERVICE, abi::flags::VLAN_SERVICE),
            (Clock::None as u32, abi::clock::NONE),
            (Clock::Realtime as u32, abi::clock::REALTIME),
            (Clock::Recorded as u32, abi::clock::RECORDED),
            (Clock::Hardware as u32, abi::clock::HARDWARE),
            (Clock::Generated as u32, abi::clock::GENERATED),
            (flowyard_mem::NO_OFFSET.into(), abi::NO_OFFSET.into()),
            (crate::function::BATCH as u32, abi::BATCH as u32),
            (size_of::<crate::function::Annotation>() as u32, abi::COPY_BYTES as u32),
        ];
        let bytes = [
            (TunnelKind::Ip as u8, abi::tunnel::IP),
            (TunnelKind::Gre as u8, abi::tunnel::GRE),
            (TunnelKind::Pptp as u8, abi::tunnel::PPTP),
            (TunnelKind::Gtp as u8, abi::tunnel::GTP),
            (TunnelKind::Vxlan as u8, abi::tunnel::VXLAN),
            (TunnelKind::Pppoe as u8, abi::tunnel::PPPOE),
            (TunnelKind::Mpls as u8, abi::tunnel::MPLS),
            (TunnelKind::Geneve as u8, abi::tunnel::GENEVE),
            (TunnelKind::L2tp as u8, abi::tunnel::L2TP),
            (TunnelKind::Other as u8, abi::tunnel::OTHER),
            (RawVerdict::BUILT_IN, abi::verdict::BUILT_IN),
            (RawVerdict::HASH, abi::verdict::HASH),
            (RawVerdict::RING, abi::verdict::RING),
            (RawVerdict::DROP, abi::verdict::DROP),
            (RawVerdict::SHUNT, abi::verdict::SHUNT),
            (RawVerdict::EVERY_RING, abi::verdict::EVERY_RING),
            (RawVerdict::HOST, abi::verdict::HOST),
        ];
        flags.into_iter().for_each(|(ours, theirs)| assert_eq!(ours, theirs));
        bytes.into_iter().for_each(|(ours, theirs)| assert_eq!(ours, theirs));
        let lookups = [Lookup::Found, Lookup::Absent, Lookup::Busy].map(host::answer);
        assert_eq!(lookups, [abi::lookup::FOUND, abi::lookup::ABSENT, abi::lookup::BUSY]);
    }
}
