//! What `flowyard run` has for those who manage it: its sockets, and the privileges that it gives up.

use std::path::{Path, PathBuf};

use flowyard::attach::{self, Serving};
use flowyard::mem::Region;
use flowyard::port::{Kind, PortSpec};
use miette::{IntoDiagnostic, Result, miette};
use rustix::thread::CapabilitySet;

use super::Run;
use crate::control::Socket;
use crate::privileges::{Needs, drop_to};
use crate::runtime;

impl Run {
    /// The control socket, if one is asked for: made before anything is given up, or opened.
    pub(super) fn socket(&self) -> Result<Option<Socket>> {
        let Some(path) = &self.service.control else { return Ok(None) };
        let user = self.service.user.as_ref();
        let socket = match path {
            Some(path) => Socket::bind(path)?,
            None => {
                let folder = runtime::make_folder(&self.service.name)?;
                let socket = Socket::bind(&folder.join(runtime::CONTROL))?;
                // So that it can be removed at the end.
                user.map(|user| user.own(&folder)).transpose()?;
                socket
            }
        };
        user.map(|user| user.own(socket.path())).transpose()?;
        Ok(Some(socket))
    }

    /// How other processes are served and where, if they are to attach to the rings: what that takes is made ready.
    pub(super) fn serving(&self, region: &Region, groups: &[(String, u16)]) -> Result<Option<(PathBuf, Serving)>> {
        let Some(path) = &self.service.attach else { return Ok(None) };
        let path = match path {
            Some(path) => path.clone(),
            None => {
                let folder = runtime::make_folder(&self.service.name)?;
                self.service.user.as_ref().map(|user| user.own(&folder)).transpose()?;
                folder.join(attach::SOCKET)
            }
        };
        let (name, allow) = (self.service.name.clone(), self.service.allow.clone());
        let serving = Serving { name, groups: groups.iter().map(|(group, _)| group.clone()).collect(), allow };
        serving.prepare(region).into_diagnostic()?;
        Ok(Some((path, serving)))
    }

    /// Gives up what `--user` says, before there are other threads.
    pub(super) fn give_up(&self, ports: &[PortSpec]) -> Result<()> {
        let Some(user) = &self.service.user else {
            // Nothing that a yard starts is to have more than it has.
            let _ = rustix::thread::set_no_new_privs(true);
            return Ok(());
        };
        let capabilities: CapabilitySet = self.service.keep_capabilities.iter().copied().collect();
        check_capabilities(capabilities, ports)?;
        let mut needs =
            Needs { programs: self.steering.has_processes(), read: Vec::new(), write: Vec::new(), capabilities };
        let beside =
            |path: &Path| path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        needs.read.extend(self.steering.files().map(beside));
        needs.read.extend(self.config.as_deref().map(beside));
        needs.read.extend(ports.iter().filter(|p| p.kind == Kind::Pcap).map(|p| PathBuf::from(&p.what)));
        needs.write.push(runtime::runtime_folder(&self.service.name));
        needs.write.extend(self.output.clone());
        needs.write.extend(self.service.control.iter().flatten().map(|path| beside(path)));
        if self.service.attach.is_some() {
            needs.read.push("/etc".into()); // names of users and groups
        }
        needs.write.extend(self.service.attach.iter().flatten().map(|path| beside(path)));
        if needs.programs {
            needs.read.extend(std::env::current_exe()); // what is started is this program
        }
        if capabilities.contains(CapabilitySet::BPF) {
            needs.write.push("/sys/fs/bpf".into()); // where counters lie for the next owner
        }
        let said = drop_to(user, &needs, self.service.keep_privileges)?;
        if !self.quiet {
            tracing::info!("given up: now {said}");
        }
        Ok(())
    }
}

/// A port that has some of what opening a queue takes begins, and fails half-way; one that has nothing counts the queue
/// as refused, and goes on.
fn check_capabilities(kept: CapabilitySet, ports: &[PortSpec]) -> Result<()> {
    let for_queues = CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN | CapabilitySet::BPF | CapabilitySet::PERFMON;
    let xdp = ports.iter().any(|port| port.kind == Kind::Xdp);
    if xdp && kept.contains(CapabilitySet::NET_RAW) && !kept.contains(for_queues) {
        return Err(miette!(
            "--keep-capabilities has net_raw without all of net_admin, bpf and perfmon: to open queues that come later, \
             an xdp: port needs the four; give them, or leave net_raw out"
        ));
    }
    Ok(())
}
