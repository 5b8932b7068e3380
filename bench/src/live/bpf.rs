//! XDP programs of a few lines, built when they are first asked for.

use std::process::Command;

/// Builds a program; `None` without clang and libbpf's headers.
pub fn build(name: &str, source: &str) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("flowyard-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    let (path, object) = (folder.join("program.bpf.c"), folder.join("program.o"));
    std::fs::write(&path, source).ok()?;
    let headers = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", &headers, "-c"]).arg(&path).arg("-o").arg(&object);
    let built = clang.status().is_ok_and(|status| status.success());
    let bytes = if built { std::fs::read(&object).ok() } else { None };
    let _ = std::fs::remove_dir_all(folder);
    bytes
}

/// Number of an interface of the calling thread's namespace.
pub fn index_of(interface: &str) -> u32 {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    rustix::net::netdevice::name_to_index(socket.expect("a socket"), interface).expect("an interface")
}
