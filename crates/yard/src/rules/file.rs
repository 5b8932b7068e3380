//! The file of rules: TOML in, [`Rule`]s out, or a refusal that names line, key, value and what is allowed.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use flowyard_steer::{Fragment, LinkType, Stop};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

use super::action::{Action, Go, VERDICTS};
use super::facts::{NO_VLAN, fragment_number};
use super::filter::{Filter, On};
use super::keys::{Key, Keys, TUNNELS};
use super::matcher::Rule;
use super::set::{Nets, Ranges};

/// Most rules of a file.
const MOST: usize = 65_536;
/// Longest name of a rule, in bytes.
const LONGEST_NAME: usize = 64;

/// Reads the text of a file.
pub(super) fn read(text: &str) -> Result<Vec<Rule>, String> {
    let file: Text = toml::from_str(text).map_err(|error| {
        let message = error.message().trim_end().replace('\n', "; ");
        error.span().map_or_else(|| message.clone(), |span| at_line(text, span.start, &message))
    })?;
    if file.rule.is_empty() {
        return Err("has no rules: begin each with [[rule]]".into());
    }
    if file.rule.len() > MOST {
        return Err(format!("has {} rules: at most {MOST} are allowed", file.rule.len()));
    }
    let mut rules = Vec::with_capacity(file.rule.len());
    for rule in file.rule {
        let start = rule.span().start;
        let rule = rule.into_inner().resolve(text, start)?;
        check_against(&rule, &rules)?;
        rules.push(rule);
    }
    Ok(rules)
}

/// `line N: message`, with the line as it is written.
fn at_line(text: &str, at: usize, message: &str) -> String {
    let written = text.get(at..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let start = text.get(..at).map_or(0, |before| before.rfind('\n').map_or(0, |newline| newline + 1));
    let written = text.get(start..at + written.len()).unwrap_or_default().trim();
    format!("line {}: {message} (where it says: {written})", line(text, at))
}

/// The line of a place in the text, from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

/// That a rule differs from those before it, and that they leave it something.
fn check_against(rule: &Rule, before: &[Rule]) -> Result<(), String> {
    let at = format!("line {}: {}", rule.line, shown(rule.name.as_deref(), before.len()));
    let named = rule.name.as_deref().and_then(|name| before.iter().find(|other| other.name.as_deref() == Some(name)));
    if let Some(other) = named {
        return Err(format!("{at}: name: the rule of line {} has it as well; each needs its own", other.line));
    }
    if let Some((key, why)) = rule.keys.contradiction() {
        return Err(format!("{at}: {}: matches no packet, because {why}", key.name()));
    }
    if let Some((number, other)) = before.iter().enumerate().find(|(_, other)| other.keys.cover(&rule.keys)) {
        let other = format!("{} of line {}", shown(other.name.as_deref(), number), other.line);
        return Err(format!("{at}: can never match, because {other} matches all that it does: put it before that"));
    }
    Ok(())
}

/// How a rule is called, from its name or its place in the file.
pub(super) fn shown(name: Option<&str>, place: usize) -> String {
    name.map_or_else(|| format!("rule {}", place + 1), str::to_owned)
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
}

/// `[[rule]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Option<Spanned<String>>,
    verdict: Option<One<GoItem>>,
    slice: Option<One<SliceItem>>,
    pull: Option<One<PullItem>>,
    mark: Option<One<MarkItem>>,
    protocol: Option<Many<ProtocolItem>>,
    port: Option<Many<PortItem>>,
    sport: Option<Many<SportItem>>,
    dport: Option<Many<DportItem>>,
    net: Option<Many<NetItem>>,
    outer_net: Option<Many<OuterNetItem>>,
    vlan: Option<Many<VlanItem>>,
    tunnel: Option<Many<TunnelItem>>,
    tunnel_id: Option<Many<TunnelIdItem>>,
    fragment: Option<Many<FragmentItem>>,
    stop: Option<Many<StopItem>>,
    link: Option<Many<LinkItem>>,
    port_number: Option<Many<PortNumberItem>>,
    length: Option<Many<LengthItem>>,
    icmp_error: Option<bool>,
    filter: Option<Spanned<String>>,
    filter_on: Option<Spanned<One<OnItem>>>,
}

impl RuleText {
    fn resolve(self, text: &str, start: usize) -> Result<Rule, String> {
        let mut keys = Keys::default();
        set(&mut keys, Key::Protocol, self.protocol);
        set(&mut keys, Key::Port, self.port);
        set(&mut keys, Key::Sport, self.sport);
        set(&mut keys, Key::Dport, self.dport);
        set(&mut keys, Key::Vlan, self.vlan);
        set(&mut keys, Key::Tunnel, self.tunnel);
        set(&mut keys, Key::TunnelId, self.tunnel_id);
        set(&mut keys, Key::Fragment, self.fragment);
        set(&mut keys, Key::Stop, self.stop);
        set(&mut keys, Key::Link, self.link);
        set(&mut keys, Key::PortNumber, self.port_number);
        set(&mut keys, Key::Length, self.length);
        if let Some(error) = self.icmp_error {
            keys.set(Key::IcmpError, [(error.into(), error.into())].into_iter().collect());
        }
        keys.net = self.net.map(|many| nets(many.0.into_iter().map(|item| item.0)));
        keys.outer_net = self.outer_net.map(|many| nets(many.0.into_iter().map(|item| item.0)));
        keys.filter = match (self.filter, self.filter_on) {
            (Some(filter), on) => {
                let on = on.map_or(On::default(), |on| on.into_inner().0.0);
                let expression = filter.get_ref().trim();
                let refused = |why: String| at_line(text, filter.span().start, &format!("filter: {why}"));
                if expression.is_empty() {
                    return Err(refused("must be an expression as tcpdump takes it".into()));
                }
                let why = |why| refused(format!("{expression:?}: {why}"));
                Some(Filter::compile(expression, on).map_err(why)?)
            }
            (None, Some(on)) => {
                return Err(at_line(text, on.span().start, "filter_on: says what a filter is for, and there is none"));
            }
            (None, None) => None,
        };
        let Some(go) = self.verdict else {
            return Err(at_line(text, start, &format!("verdict: is missing in this rule: {VERDICTS}")));
        };
        let name = self.name.map(|name| checked_name(text, name)).transpose()?;
        let action = Action {
            go: go.0.0,
            slice: self.slice.map_or(0, |slice| slice.0.0),
            pull: self.pull.map_or(0, |pull| pull.0.0),
            mark: self.mark.map(|mark| mark.0.0),
        };
        Ok(Rule { name, line: line(text, start), keys, action })
    }
}

fn checked_name(text: &str, name: Spanned<String>) -> Result<String, String> {
    let at = name.span().start;
    let name = name.into_inner();
    let fits = !name.trim().is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
    if fits && !(name.starts_with("rule ") && name[5..].parse::<usize>().is_ok()) {
        return Ok(name);
    }
    let allowed = format!(
        "must have 1 to {LONGEST_NAME} bytes, no control characters, and not be \"rule N\", which rules without a name are called"
    );
    Err(at_line(text, at, &format!("name: {name:?}: {allowed}")))
}

fn set<I: Into<Vec<(u32, u32)>>>(keys: &mut Keys, key: Key, many: Option<Many<I>>) {
    if let Some(many) = many {
        keys.set(key, many.0.into_iter().flat_map(Into::into).collect::<Ranges<u32>>());
    }
}

fn nets(networks: impl Iterator<Item = (IpAddr, u8)>) -> Nets {
    Nets::new(&networks.collect::<Vec<_>>())
}

/// A value that is written as a string or a number.
trait Item: Sized {
    /// The key that it stands behind.
    const KEY: &'static str;
    /// What it may be.
    fn allowed() -> String;
    fn read(text: &str) -> Option<Self>;
}

/// One value.
struct One<I>(I);

/// One value, or a list of them.
struct Many<I>(Vec<I>);

/// Reads values: one, or where `many` says so, lists.
struct Reader<I> {
    many: bool,
    item: PhantomData<I>,
}

impl<'de, I: Item> Visitor<'de> for Reader<I> {
    type Value = Vec<I>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "something else behind {}, which {}{}",
            I::KEY,
            I::allowed(),
            if self.many { ", or a list" } else { "" }
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<I>, E> {
        let item = I::read(text).ok_or_else(|| E::custom(format!("{}: {text:?}: {}", I::KEY, I::allowed())))?;
        Ok(vec![item])
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<I>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<I>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<I>, A::Error> {
        if !self.many {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        let mut items = Vec::new();
        while let Some(One(item)) = list.next_element()? {
            items.push(item);
        }
        if items.is_empty() {
            return Err(A::Error::custom(format!("{}: an empty list matches no packet: {}", I::KEY, I::allowed())));
        }
        Ok(items)
    }
}

impl<'de, I: Item> Deserialize<'de> for One<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = deserializer.deserialize_any(Reader { many: false, item: PhantomData })?;
        items.into_iter().next().map(One).ok_or_else(|| D::Error::custom("nothing is there"))
    }
}

impl<'de, I: Item> Deserialize<'de> for Many<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader { many: true, item: PhantomData }).map(Many)
    }
}

/// Items: name, what they hold, key, how they are read, what is allowed.
macro_rules! items {
    ($($item:ident($holds:ty) $key:literal = $read:expr, $allowed:expr;)*) => {$(
        struct $item($holds);

        impl Item for $item {
            const KEY: &'static str = $key;

            fn allowed() -> String {
                $allowed.into()
            }

            fn read(text: &str) -> Option<Self> {
                let read: fn(&str) -> Option<$holds> = $read;
                read(text).map($item)
            }
        }

        impl From<$item> for $holds {
            fn from(item: $item) -> Self {
                item.0
            }
        }
    )*};
}

type Set = Vec<(u32, u32)>;

items! {
    GoItem(Go) "verdict" = Go::read, VERDICTS;
    SliceItem(u32) "slice" = |text| number(text, u32::MAX).filter(|&bytes| bytes > 0), "must be a number of bytes from 1";
    PullItem(u16) "pull" = |text| text.parse().ok().filter(|&bytes| bytes > 0), "must be a number of bytes from 1 to 65535";
    MarkItem(u64) "mark" = mark, "must be a number of at most 64 bits, from 2^63 on in quotes and with 0x";
    OnItem(On) "filter_on" = on, "must be \"inner\", \"outer\" or \"either\"";
    ProtocolItem(Set) "protocol" = protocol, format!("must be a number from 0 to 255 or one of {}", names(&PROTOCOLS));
    PortItem(Set) "port" = |text| range(text, 65_535), PORTS;
    SportItem(Set) "sport" = |text| range(text, 65_535), PORTS;
    DportItem(Set) "dport" = |text| range(text, 65_535), PORTS;
    NetItem((IpAddr, u8)) "net" = net, NETS;
    OuterNetItem((IpAddr, u8)) "outer_net" = net, NETS;
    VlanItem(Set) "vlan" = vlan, "must be an identifier from 0 to 4095, a range \"100-199\", or \"none\"";
    TunnelItem(Set) "tunnel" = tunnel, format!("must be one of {}", TUNNELS.join(", "));
    TunnelIdItem(Set) "tunnel_id" = |text| range(text, u32::MAX), "must be a number of at most 32 bits, or a range \"5000-5999\"";
    FragmentItem(Set) "fragment" = fragment, "must be \"none\", \"first\" or \"later\"";
    StopItem(Set) "stop" = stop, format!("must be one of {}", Stop::ALL.iter().map(|stop| stop.name()).collect::<Vec<_>>().join(", "));
    LinkItem(Set) "link" = link, format!("must be a number of at most 16 bits or one of {}", link_names().join(", "));
    PortNumberItem(Set) "port_number" = |text| range(text, 65_535), "must be the number of a port of the yard, in the order in which they were given, from 0; or a range \"0-3\"";
    LengthItem(Set) "length" = |text| range(text, u32::MAX), "must be a number of bytes on the wire, or a range \"0-128\" or \"1500-\"";
}

const PORTS: &str = "must be a port from 0 to 65535, or a range \"8000-8999\"";
const NETS: &str =
    "must be an address or a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", with zeros behind the prefix";

/// IP protocols by name.
const PROTOCOLS: [(&str, u32); 18] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("dccp", 33),
    ("udplite", 136),
    ("igmp", 2),
    ("ip", 4),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
];

fn names(named: &[(&str, u32)]) -> String {
    named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// A number, decimal or with 0x, up to `largest`.
fn number(text: &str, largest: u32) -> Option<u32> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.ok().filter(|&number| number <= largest)
}

/// A number, `A-B`, or `A-`.
fn range(text: &str, largest: u32) -> Option<Set> {
    let (low, high) = match text.split_once('-') {
        Some((low, "")) => (number(low.trim(), largest)?, largest),
        Some((low, high)) => (number(low.trim(), largest)?, number(high.trim(), largest)?),
        None => (number(text, largest)?, number(text, largest)?),
    };
    (low <= high).then(|| vec![(low, high)])
}

fn one(number: u32) -> Set {
    vec![(number, number)]
}

fn protocol(text: &str) -> Option<Set> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| one(*number));
    named.or_else(|| number(text, 255).map(one))
}

fn vlan(text: &str) -> Option<Set> {
    if text == "none" { Some(one(NO_VLAN)) } else { range(text, 4095) }
}

fn tunnel(text: &str) -> Option<Set> {
    TUNNELS.iter().position(|name| *name == text).map(|number| one(number as u32))
}

fn fragment(text: &str) -> Option<Set> {
    let all = [Fragment::None, Fragment::First, Fragment::Later];
    all.into_iter().find(|fragment| fragment.name() == text).map(|fragment| one(fragment_number(fragment)))
}

fn stop(text: &str) -> Option<Set> {
    Stop::ALL.iter().find(|stop| stop.name() == text).map(|&stop| one(stop as u32))
}

/// Link types that have a name: several may share one.
fn named_links() -> impl Iterator<Item = LinkType> {
    (0..=512).map(LinkType).filter(|link| link.name() != "unknown")
}

fn link_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = named_links().map(|link| link.name()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn link(text: &str) -> Option<Set> {
    let named: Set = named_links().filter(|link| link.name() == text).map(|l| (l.0.into(), l.0.into())).collect();
    if named.is_empty() { number(text, 65_535).map(one) } else { Some(named) }
}

fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = prefix.map_or(Some(longest), |prefix| prefix.parse().ok()).filter(|&prefix| prefix <= longest)?;
    let behind_is_zero = match address {
        IpAddr::V4(address) => address.to_bits().checked_shl(prefix.into()).unwrap_or(0) == 0,
        IpAddr::V6(address) => address.to_bits().checked_shl(prefix.into()).unwrap_or(0) == 0,
    };
    behind_is_zero.then_some((address, prefix))
}

fn mark(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn on(text: &str) -> Option<On> {
    Some(match text {
        "inner" => On::Inner,
        "outer" => On::Outer,
        "either" => On::Either,
        _ => return None,
    })
}
