//! Who may have which ring: rules, of which the first that fits decides.
//!
//! ```text
//! WHO[=RING,…][+write][+send] WHO: a user, @group, or * for anybody
//!
//! ids=ids/0,ids/1             the user ids, these two rings, for reading
//! @analysts                   members of the group, any ring
//! bridge=2+send               may have packets sent, where the yard transmits
//! filter=2+write              may write packets: trust over the whole region
//! ```
//!
//! Without a rule the yard's own user and root may read any ring, and send. A ring is a share of the work and no secret:
//! who may read one is given the region, with the packets of all.

use std::str::FromStr;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    who: Who,
    /// Rings by name; all, if there is none.
    rings: Vec<String>,
    write: bool,
    send: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    User(u32),
    Group(u32),
    Anybody,
}

/// A rule that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?}: {why}; write WHO[=RING,…][+write][+send], where WHO is a user, @group or *")]
pub struct AllowError {
    rule: String,
    why: String,
}

impl FromStr for Allow {
    type Err = AllowError;

    /// Looks users and groups up in the system's databases; numbers are taken as they are.
    fn from_str(rule: &str) -> Result<Allow, AllowError> {
        let wrong = |why: String| AllowError { rule: rule.into(), why };
        let (mut write, mut send) = (false, false);
        let mut parts = rule.split('+');
        let rest = parts.next().unwrap_or_default();
        for right in parts {
            match right {
                "write" => write = true,
                "send" => send = true,
                what => return Err(wrong(format!("+{what} is no right"))),
            }
        }
        let (who, rings) = rest.split_once('=').map_or((rest, None), |(who, rings)| (who, Some(rings)));
        let rings: Vec<String> = rings.map(|r| r.split(',').map(str::to_owned).collect()).unwrap_or_default();
        if let Some(ring) = rings.iter().find(|r| r.rsplit('/').next().is_none_or(|n| n.parse::<u16>().is_err())) {
            return Err(wrong(format!("{ring:?} is no ring")));
        }
        let who = match who.strip_prefix('@') {
            _ if who == "*" => Who::Anybody,
            Some(group) => Who::Group(
                number(group, Group::from_name(group).map(|g| g.map(|g| g.gid.as_raw())))
                    .ok_or_else(|| wrong(format!("there is no group {group:?}")))?,
            ),
            None => Who::User(
                number(who, User::from_name(who).map(|u| u.map(|u| u.uid.as_raw())))
                    .ok_or_else(|| wrong(format!("there is no user {who:?}")))?,
            ),
        };
        Ok(Allow { who, rings, write, send })
    }
}

fn number(text: &str, found: nix::Result<Option<u32>>) -> Option<u32> {
    found.ok().flatten().or_else(|| text.parse().ok())
}

impl Allow {
    /// Whether it lets somebody write.
    pub fn writes(&self) -> bool {
        self.write
    }

    /// Whether it is about others than the yard's own user and root.
    pub fn is_for_others(&self) -> bool {
        self.who != Who::User(rustix::process::geteuid().as_raw()) && self.who != Who::User(0)
    }
}

/// A peer, as the kernel says who it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
    gid: u32,
}

impl Peer {
    /// Of a connected Unix socket: its user when it connected (SO_PEERCRED, unix(7)).
    pub(super) fn of(socket: impl std::os::fd::AsFd) -> std::io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let (pid, uid, gid) = (credentials.pid.as_raw_nonzero().get(), credentials.uid, credentials.gid);
        Ok(Peer { pid: pid.unsigned_abs(), uid: uid.as_raw(), gid: gid.as_raw() })
    }

    fn is(&self, who: Who) -> bool {
        match who {
            Who::User(uid) => uid == self.uid,
            Who::Group(gid) => gid == self.gid || self.is_member(gid),
            Who::Anybody => true,
        }
    }

    /// Whether the group database says so.
    fn is_member(&self, gid: u32) -> bool {
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else { return false };
        let Ok(name) = std::ffi::CString::new(user.name) else { return false };
        getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
    }

    /// Whether it may have `ring`, for writing if `write`. Answers whether it may send.
    pub(super) fn may(&self, rules: &[Allow], ring: &str, write: bool) -> Result<bool, String> {
        let mut fitting = rules.iter().filter(|rule| self.is(rule.who));
        let listed = |rule: &&Allow| rule.rings.is_empty() || rule.rings.iter().any(|r| r == ring);
        let uid = self.uid;
        let own = uid == 0 || uid == rustix::process::geteuid().as_raw();
        match fitting.find(listed) {
            Some(rule) if rule.write || !write => Ok(rule.send || own),
            None if own && !write => Ok(true),
            _ if write => {
                Err(format!("user {uid} may not write: the yard must be run with --allow {}={ring}+write", name(uid)))
            }
            _ => Err(format!("user {uid} may not read it: the yard must be run with --allow {}={ring}", name(uid))),
        }
    }
}

fn name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Allow> {
        texts.iter().map(|text| text.parse().expect("a rule")).collect()
    }

    #[test]
    fn the_first_rule_that_fits_user_and_ring_decides() {
        let peer = |uid, gid| Peer { pid: 1, uid, gid };
        let rules = rules(&["4000=ids/0,2", "4000=3+write", "@5000", "@5000=1+write"]);
        let may = |who: Peer, ring, write| who.may(&rules, ring, write).is_ok();
        let (user, member, other) = (peer(4000, 4000), peer(4001, 5000), peer(4002, 4002));
        assert!(may(user, "ids/0", false) && may(user, "2", false) && may(user, "3", false) && may(user, "3", true));
        assert!(!may(user, "1", false) && !may(user, "ids/0", true) && !may(user, "ids/2", false));
        assert!(may(member, "7", false) && !may(member, "1", true), "the first decides");
        assert!(!may(other, "0", false));
        let sends = |rule: &str| user.may(&[rule.parse().expect("a rule")], "0", false);
        assert_eq!((sends("4000=0"), sends("4000=0+send"), sends("*+write")), (Ok(false), Ok(true), Ok(false)));
        assert!(may(peer(0, 0), "0", false) && !may(peer(0, 0), "0", true), "root reads");
    }

    #[test]
    fn names_are_looked_up_and_nonsense_is_named() {
        assert_eq!("root=0".parse::<Allow>().expect("a user").who, Who::User(0));
        assert_eq!("@root".parse::<Allow>().expect("a group").who, Who::Group(0));
        assert_eq!(
            "*+write".parse::<Allow>().expect("anybody"),
            Allow { who: Who::Anybody, rings: vec![], write: true, send: false }
        );
        for (rule, why) in [
            ("nobody-of-that-name", "no user"),
            ("@nor-group", "no group"),
            ("root=x", "no ring"),
            ("root+all", "no right"),
            ("root=", "no ring"),
        ] {
            let error = rule.parse::<Allow>().expect_err(rule).to_string();
            assert!(error.contains(why) && error.contains(rule), "{error}");
        }
    }
}
