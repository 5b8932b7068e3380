//! Whose program is on an interface, and what to do about it.

use std::time::SystemTime;

use aya::programs::ProgramInfo;

use crate::PortError;
use crate::interface::{Interface, XdpPlace};

/// What the kernel says of the program of that number, if there is one.
pub(super) fn program_of(id: u32) -> Option<ProgramInfo> {
    aya::programs::loaded_programs().flatten().find(|info| info.id() == id)
}

/// A program for people: name, tag, and how long it has been there.
fn description(info: &ProgramInfo) -> String {
    let name = info.name_as_str().map_or(String::new(), |name| format!(" {name:?}"));
    let age = info.loaded_at().and_then(|at| SystemTime::now().duration_since(at).ok());
    let age = age.map_or(String::new(), |age| format!(", loaded {} s ago", age.as_secs()));
    format!("{name}, tag {:016x}{age}", info.tag())
}

/// Error for an interface that has a program already: which, whose, and what to do. `more` is what else is known.
pub(super) fn occupied(port: &str, interface: &Interface, place: XdpPlace, id: u32, more: &str) -> PortError {
    let what = program_of(id).map_or(String::new(), |info| description(&info));
    let (owner, way_out) = match holder(id) {
        Some(Holder { process, command, link: true }) => (
            format!("attached by process {process} ({command})"),
            "stop that process; its program goes with it (or detach the link: `bpftool link list` names it)".to_owned(),
        ),
        Some(Holder { process, command, link: false }) => (
            format!("held by process {process} ({command})"),
            format!("stop that process, or run `ip link set dev {} {} off`", interface.name, place.word()),
        ),
        None => (
            "held by no process that can be seen".into(),
            format!(
                "if nobody needs it, run `ip link set dev {} {} off` (if it is pinned, remove the pin under /sys/fs/bpf)",
                interface.name,
                place.word()
            ),
        ),
    };
    PortError::action(
        port,
        "attach its XDP program",
        format!("{} has the XDP program {id}{what} ({}), {owner}{more}", interface.name, place.word()),
        format!("{way_out}; or use packet:{}, which needs no program", interface.name),
    )
}

/// Who holds a program.
pub(super) struct Holder {
    process: u32,
    command: String,
    link: bool,
}

/// A process that holds program `id`, best one that holds a link to it. Seen in /proc/PID/fdinfo.
pub(super) fn holder(id: u32) -> Option<Holder> {
    let mut found = None;
    let wanted = id.to_string();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(number) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fdinfo")) else { continue };
        for text in descriptors.flatten().filter_map(|d| std::fs::read_to_string(d.path()).ok()) {
            let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
            if value("prog_id:") != Some(&wanted) {
                continue;
            }
            let link = value("link_id:").is_some();
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim().to_owned();
            found = Some(Holder { process: number, command, link });
            if link {
                return found;
            }
        }
    }
    found
}
