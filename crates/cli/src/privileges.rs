//! What a yard gives up once its ports are open: its user, its capabilities, files, system calls.
//!
//! ```text
//! user          --user NAME: its groups, its number, nothing of the old one's left
//! capabilities  none, in no set, and none can be got again (no new privileges)
//! files         landlock: read what the system and the configuration have, write where the yard writes
//! system calls  seccomp: what a yard never makes fails with EPERM
//! ```
//!
//! All of it is the thread's own and goes on to threads that it starts, so it is done before there are others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use miette::{IntoDiagnostic, Result, miette};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// System folders that are read: libraries of plug-ins, what the kernel tells.
const READ: [&str; 7] = ["/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev"];

/// What a yard never does. Starting programs comes on top, unless plug-ins run in processes of their own.
const NEVER: [i64; 44] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_mknodat,
    libc::SYS_nfsservctl,
];

/// A user, and the group that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// By its name in /etc/passwd, or as UID or UID:GID.
    pub fn find(name: &str) -> Result<User, String> {
        let (uid, gid) = name.split_once(':').unwrap_or((name, name));
        if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
            return Ok(User { name: name.into(), uid, gid });
        }
        let users = std::fs::read_to_string("/etc/passwd").map_err(|e| format!("cannot read /etc/passwd: {e}"))?;
        let found = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        let (uid, gid) = found.ok_or_else(|| {
            format!("there is no user {name} in /etc/passwd: write a name from there, UID or UID:GID")
        })?;
        Ok(User { name: name.into(), uid, gid })
    }

    /// Gives a file or folder to it.
    pub fn own(&self, path: &Path) -> Result<()> {
        let given = std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid));
        given.map_err(|e| miette!("cannot give {} to user {}: {e}", path.display(), self.name))
    }
}

/// What a run still needs.
#[derive(Debug)]
pub struct Needs {
    /// Folders and files that are read.
    pub read: Vec<PathBuf>,
    /// Folders that are written.
    pub write: Vec<PathBuf>,
    /// Capabilities that stay.
    pub capabilities: CapabilitySet,
    /// Plug-ins run in processes of their own, which are started again when they crash.
    pub programs: bool,
}

/// Gives everything up but what `needs` says, and answers what was given up. With `lenient`, what cannot be given up is
/// said and kept.
pub fn drop_to(user: &User, needs: &Needs, lenient: bool) -> Result<String> {
    let threads = std::fs::read_dir("/proc/self/task").into_diagnostic()?.count();
    let mut done = Vec::new();
    let mut step = |what: &str, outcome: Result<String>| match outcome {
        Ok(said) => {
            done.push(said);
            Ok(())
        }
        Err(error) if lenient => {
            tracing::warn!("kept, because of --keep-privileges: {what}: {error}");
            Ok(())
        }
        Err(error) => {
            Err(miette!("cannot give up {what}: {error}; --keep-privileges goes on with what can be given up"))
        }
    };
    if threads != 1 {
        let why = miette!(
            "{threads} threads run already, and each would keep its own (a plug-in has started some: --isolate runs it \
             in a process of its own)"
        );
        step("privileges", Err(why))?;
    }
    step("the user", change_user(user, !needs.capabilities.is_empty()))?;
    step("capabilities", capabilities_but(needs.capabilities))?;
    step("files", landlocked(needs))?;
    step("system calls", seccomp(needs))?;
    Ok(done.join("; "))
}

fn change_user(user: &User, keep: bool) -> Result<String> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let said = format!("user {} ({}:{})", user.name, user.uid, user.gid);
    if rustix::process::getuid() == uid && rustix::process::geteuid() == uid {
        return Ok(said); // as the service manager has it already
    }
    let cannot = |what: &'static str| move |e: rustix::io::Errno| miette!("{what}: {e}");
    // Of those that there are, the kernel would take all away with the user; what is not to stay goes below.
    rustix::thread::set_keep_capabilities(keep).map_err(cannot("PR_SET_KEEPCAPS"))?;
    rustix::thread::set_thread_groups(&[gid]).map_err(cannot("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(cannot("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(cannot("setresuid"))?;
    Ok(said)
}

fn capabilities_but(kept: CapabilitySet) -> Result<String> {
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set().into_diagnostic()?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    rustix::thread::set_capabilities(None, sets).into_diagnostic()?;
    rustix::thread::set_no_new_privs(true).into_diagnostic()?;
    if kept.is_empty() {
        return Ok("no capabilities".into());
    }
    let names: Vec<String> = kept.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    Ok(format!("no capabilities but {}", names.join(", ")))
}

/// `--keep-capabilities`: one, by its name, with CAP_ before it or without.
pub fn capability(name: &str) -> Result<CapabilitySet, String> {
    let upper = name.to_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CapabilitySet::from_name(bare)
        .ok_or_else(|| format!("{name:?} is no capability, such as net_raw (capabilities(7))"))
}

fn landlocked(needs: &Needs) -> Result<String> {
    let abi = ABI::V5;
    let programs = if needs.programs { AccessFs::Execute.into() } else { landlock::BitFlags::EMPTY };
    let read = (AccessFs::from_read(abi) & !AccessFs::Execute) | programs;
    let write = AccessFs::from_all(abi) & !AccessFs::Execute;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(READ, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&needs.read, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&needs.write, write)))
        .and_then(|rules| rules.restrict_self());
    match ruleset.into_diagnostic()?.ruleset {
        RulesetStatus::FullyEnforced => Ok("files by landlock".into()),
        RulesetStatus::PartiallyEnforced => Ok("files by landlock, as far as this kernel has it".into()),
        RulesetStatus::NotEnforced => Ok("files not, this kernel has no landlock".into()),
    }
}

fn seccomp(needs: &Needs) -> Result<String> {
    let programs = [libc::SYS_execve, libc::SYS_execveat];
    let denied = NEVER.into_iter().chain(programs.into_iter().filter(|_| !needs.programs));
    let rules: BTreeMap<_, _> = denied.map(|call| (call, Vec::new())).collect();
    let number = rules.len();
    let target = std::env::consts::ARCH.try_into().into_diagnostic()?;
    let deny = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, target).into_diagnostic()?;
    let program: BpfProgram = filter.try_into().into_diagnostic()?;
    seccompiler::apply_filter(&program).into_diagnostic()?;
    let but = if needs.programs { ", but starting programs stays, for --isolate" } else { "" };
    Ok(format!("{number} system calls denied{but}"))
}

#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(User::find("root").map(|user| (user.uid, user.gid)), Ok((0, 0)));
        assert_eq!(User::find("1234:56").map(|user| (user.uid, user.gid)), Ok((1234, 56)));
        assert_eq!(User::find("1234").map(|user| (user.uid, user.gid)), Ok((1234, 1234)));
        assert!(User::find("no-such-user").is_err_and(|why| why.contains("/etc/passwd")));
    }
}
