//! `flowyard audit` as a user meets it: the verdict, the causes, the page, and what it refuses.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use flowyard_testkit::net::{self, Namespace, Veth};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowyard");

fn flowyard(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().expect("the program runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn capture(dir: &Path, packets: u32) -> String {
    let file = dir.join("a.pcapng").display().to_string();
    let made = flowyard(&["gen", &format!("gen:mix?packets={packets}&flows=400"), "-w", &file, "-q"]);
    assert!(made.status.success(), "{}", errors(&made));
    file
}

/// The figures of an audit that goes well.
fn figures(args: &[&str]) -> Value {
    let output = flowyard(&[&["audit", "--json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", errors(&output));
    serde_json::from_str(&out(&output)).expect("one JSON object")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_card_splits_most_and_flowyard_none_and_the_causes_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 30_000);
    let f = figures(&[&file]);
    let (several, split) = (number(&f["conversations"]) - number(&f["single_packet"]), number(&f["card"]["split"]));
    assert!(several > 350 && split > several / 2, "{f}");
    assert_eq!(f["flowyard"]["split"], 0);
    assert_eq!((&f["card"]["queues"], &f["flowyard"]["rings"]), (&8.into(), &8.into()));
    let causes = f["card"]["causes"].as_object().expect("an object");
    assert_eq!(causes.values().map(number).sum::<u64>(), split, "each has one cause");
    for cause in ["direction", "tunnel", "fragments", "icmp-error"] {
        assert!(number(&causes[cause]) > 0, "{cause}: {f}");
    }
    for side in ["card", "flowyard"] {
        let loads = f[side]["loads"].as_array().expect("a list");
        assert_eq!(loads.iter().map(|l| number(&l["packets"])).sum::<u64>(), 30_000, "{side}");
    }
    assert!(f["card"]["busiest"].as_f64() > f["flowyard"]["busiest"].as_f64(), "PPPoE and MPLS are on one queue");
    assert!(number(&f["card"]["no_ip_header"]["pppoe"]) > 0, "{f}");
    assert!(f["examples"].as_array().is_some_and(|list| list.len() > 4), "{f}");

    let text = out(&flowyard(&["audit", &file]));
    let verdict = format!("A card with 8 queues would split {split} of {several} conversations; Flowyard splits 0.");
    assert_eq!(text.lines().next(), Some(verdict.as_str()));
    assert_eq!(f["verdict"], verdict.as_str());
    for word in ["why the card splits them", "direction", "fragments", "icmp-error", "busiest", "█", "for example"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_symmetric_key_cures_directions_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 20_000);
    let microsoft = figures(&["--queues", "16", &file]);
    let symmetric = figures(&["--queues", "16", "--rss", "symmetric", &file]);
    assert_eq!(symmetric["card"]["split"], microsoft["card"]["split_with_symmetric_key"]);
    assert_eq!(symmetric["card"]["causes"]["direction"], 0);
    assert!(number(&symmetric["card"]["causes"]["fragments"]) > 0);
    let hex = "6d5a".repeat(20);
    assert_eq!(figures(&["--queues", "16", "--rss", &hex, &file])["card"]["split"], symmetric["card"]["split"]);
    let one = figures(&["--queues", "1", "--rings", "3", &file]);
    assert_eq!((&one["card"]["split"], &one["flowyard"]["rings"]), (&0.into(), &3.into()));
}

#[test]
fn sorting_options_change_what_flowyard_does_and_not_what_a_conversation_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 20_000);
    let (plain, other) = (figures(&[&file]), figures(&["--fragments", "addresses", &file]));
    assert_eq!((&plain["conversations"], &plain["flowyard"]["split"]), (&other["conversations"], &0.into()));
    assert!(number(&other["flowyard"]["split"]) > 0, "fragments go elsewhere than their conversation: {other}");
}

#[test]
fn the_page_loads_nothing_and_says_what_the_text_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 5_000);
    let odd = dir.path().join("<b>&.pcapng").display().to_string();
    std::fs::rename(&file, &odd).expect("rename");
    let page = dir.path().join("report.html").display().to_string();
    let text = out(&flowyard(&["audit", &odd, "--html", &page]));
    let page = std::fs::read_to_string(page).expect("a page");
    for load in ["http://", "https://", "//", "<script", "<link", "<img", "@import", "url(", "src=", "href="] {
        let page = if load == "//" { page.replace(&escaped(&odd), "") } else { page.clone() };
        assert!(!page.contains(load), "the page has {load}");
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains(&format!("<h1>{}</h1>", text.lines().next().expect("a verdict"))), "{text}");
    assert!(page.contains("prefers-color-scheme:dark") && page.matches("<svg").count() == 2);
    assert!(page.contains(&escaped(&odd)) && !page.contains("<b>&.pcapng"));
    for tag in ["section", "svg", "table", "div", "main", "details"] {
        assert_eq!(page.matches(&format!("<{tag}")).count(), page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

/// The page is written over nothing but an earlier page: the capture stays whatever name it is given by.
#[test]
fn the_page_never_takes_the_place_of_the_capture() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 10);
    let (link, before) = (dir.path().join("link.html").display().to_string(), std::fs::read(&file).expect("read"));
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    for (source, page) in [(&file, &file), (&file, &link), (&format!("pcap:{file}"), &link)] {
        let output = flowyard(&["audit", source, "--html", page]);
        assert_eq!(output.status.code(), Some(2), "{source} {page}");
        assert!(errors(&output).contains("is the capture itself"), "{}", errors(&output));
        assert!(std::fs::read(&file).expect("still there") == before, "{source} {page}");
    }
    let output = Command::new(PROGRAM)
        .args(["audit", "-", "--html", &file])
        .stdin(std::fs::File::open(&file).expect("the capture"))
        .output()
        .expect("the program runs");
    assert!(errors(&output).contains("is the capture itself"), "{}", errors(&output));
    assert!(std::fs::read(&file).expect("still there") == before);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[test]
fn a_damaged_file_is_reported_as_far_as_it_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 2_000);
    let bytes = std::fs::read(&file).expect("read");
    std::fs::write(&file, &bytes[..bytes.len() / 2 + 3]).expect("write");
    let output = flowyard(&["audit", "--json", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors(&output).lines().count(), 1);
    assert!(errors(&output).contains("is damaged at byte"), "{}", errors(&output));
    let f: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert!(number(&f["packets"]) > 500 && number(&f["card"]["split"]) > 0, "{f}");
    assert!(out(&flowyard(&["audit", &file])).contains("The source failed"));
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 10);
    for (args, says) in [
        (vec!["--rss", "lo", &file], "name a key instead, such as microsoft"),
        (vec!["--rss", "no-such-if", &file], "there is no such interface"),
        (vec!["--rss", "6d5a6d5a6d5a6d5a6d5a", &file], "at least 40"),
        (vec!["--rss", "this is neither key nor interface", &file], "hexadecimal digits"),
        (vec!["--queues", "0", &file], "1..=4096"),
        (vec!["--html", "/no/such/folder/a.html", &file], "/no/such/folder/a.html"),
        (vec!["/no/such/file"], "/no/such/file"),
        (vec!["xdp:no-such-if"], "no interface"),
        (vec!["gen:mix?packet=7"], "options are"),
        (vec!["--seed", "7", "--hash", "toeplitz", &file], "--seed belongs"),
    ] {
        let output = flowyard(&[vec!["audit"], args.clone()].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
        assert!(errors(&output).contains(says), "{args:?}: {}", errors(&output));
        assert!(out(&output).is_empty() && !errors(&output).contains("panicked"), "{args:?}");
    }
}

/// As nobody, without any capability: files and built-in traffic need none.
#[test]
fn files_need_no_privilege() {
    if !net::is_root() {
        return; // then every other test is this one
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), 1_000);
    let program = dir.path().join("flowyard");
    std::fs::copy(PROGRAM, &program).expect("copy");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("chmod");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(&program)
        .args(["audit", "--json", &file])
        .output()
        .expect("setpriv runs");
    assert!(output.status.success(), "{}", errors(&output));
    let f: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!((&f["packets"], &f["flowyard"]["split"]), (&1000.into(), &0.into()));
}

#[test]
fn a_live_port_is_watched_for_as_long_as_asked_for() {
    flowyard_testkit::require_root!();
    let here = Namespace::new().expect("as root");
    here.veth(&Veth { queues: 2, ..Veth::default() }).expect("as root");
    here.run(|| {
        let refused = flowyard(&["audit", "packet:fy0", "--rss", "fy0"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(errors(&refused).contains("does not tell; name a key instead"), "{}", errors(&refused));
        let watching = Command::new(PROGRAM)
            .args(["audit", "packet:fy0", "--for", "3", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        std::thread::sleep(std::time::Duration::from_millis(1000));
        let sent = flowyard(&["gen", "gen:mix?packets=2000&flows=100&rate=4000", "--to", "packet:fy1", "-q"]);
        assert!(sent.status.success(), "{}", errors(&sent));
        let output = watching.wait_with_output().expect("wait");
        assert!(output.status.success(), "{}", errors(&output));
        let f: Value = serde_json::from_str(&out(&output)).expect("JSON");
        assert!(number(&f["packets"]) >= 1900 && number(&f["card"]["split"]) > 20, "{f}");
        assert_eq!(f["flowyard"]["split"], 0, "{f}");
    });
}
