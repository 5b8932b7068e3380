//! The peers in C, compiled for this machine when they are first asked for.
//!
//! `bench/peers` is embedded here, so that the program runs from anywhere. What compiles it is `cc`, and
//! `pkg-config` says where DPDK is.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names another run's object, for those that it starts.
pub const OBJECT: &str = "FLOWYARD_BENCH_PEERS";

const SOURCES: [(&str, &str); 7] = [
    ("peers.h", include_str!("../../peers/peers.h")),
    ("distributor.c", include_str!("../../peers/distributor.c")),
    ("lb.c", include_str!("../../peers/lb.c")),
    ("pipeline.c", include_str!("../../peers/pipeline.c")),
    ("plain.c", include_str!("../../peers/plain.c")),
    ("ptype.c", include_str!("../../peers/ptype.c")),
    ("ring.c", include_str!("../../peers/ring.c")),
];

/// Flags that a DPDK user would take. The processor is named last: pkg-config names an old one.
const FLAGS: [&str; 4] = ["-O3", "-shared", "-fPIC", "-march=native"];

/// Compiles the peers into a shared object in `folder`, which is made; answers its path, or why there is none.
pub fn compile(folder: &Path) -> Result<PathBuf, String> {
    let dpdk = output(Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]))?;
    // Nobody else's, and nobody else can write there: what lies in it is loaded.
    std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let object = folder.join("peers.so");
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&object);
    for (name, source) in SOURCES {
        let path = folder.join(name);
        std::fs::write(&path, source).map_err(|e| format!("{}: {e}", path.display()))?;
        if name.ends_with(".c") {
            cc.arg(path);
        }
    }
    output(cc.args(dpdk.split_whitespace()).args(FLAGS))?;
    Ok(object)
}

/// Version of DPDK, for the head of the tables.
pub fn version() -> Option<String> {
    output(Command::new("pkg-config").args(["--modversion", "libdpdk"])).ok().map(|text| text.trim().into())
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program}: {}", said.lines().next().unwrap_or("failed")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
