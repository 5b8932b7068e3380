//! The control socket of a running yard: HTTP with JSON over a Unix socket, so that curl will do.
//!
//! ```text
//! GET  /status                what runs and what was counted
//! POST /reload                read the function's files again and replace it between two batches
//! POST /function              a request to the function, its answer of each dispatcher
//! GET  /tables                the named tables
//! GET  /tables/NAME           a table's entries as CSV; ?key=K for one value
//! PUT  /tables/NAME?key=K     set one entry: the value in the body
//! POST /tables/NAME           set entries: CSV in the body
//! DELETE /tables/NAME?key=K   remove one entry; all of them without a key
//! GET  /consumers             who has attached to which ring
//! GET  /counters              packets, bytes and losses, in all and by ring
//! GET  /rings                 each ring now: weight, slots, what is on it, what waits, its consumer
//! GET  /weights               the shares of the rings; PUT 2,1,1 changes them (?group=NAME)
//! GET  /log-level             how much is said on standard error; PUT changes it
//! /bpf, /bpf/SLOT, /bpf/maps   the user's programs in the kernel, and their maps
//! ```
//!
//! Who may connect is a matter of the socket's permissions: it is made for its owner alone.

mod rings;

use std::io::{Cursor, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flowyard::Live;
use flowyard::attach::listen_at;
use flowyard::function::{Failure, Function, FunctionStatus, Functions};
use flowyard::tables::Tables;
use miette::{Result, miette};
use rustix::net::SocketType;
use serde_json::{Value, json};
use tiny_http::{Method, Request, Response, Server, StatusCode};

/// Largest request body: a table of some ten million lines.
pub const LONGEST_BYTES: u64 = 1 << 30;

/// Connections that may wait to be accepted.
const WAITING: i32 = 128;

/// How long the end waits for a request that is being answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes the function anew from its files.
pub type Maker = dyn Fn() -> Result<Option<Function>> + Send + Sync;

/// What the control socket speaks for.
pub struct Yard {
    /// Where other processes attach, if they may.
    pub server: Option<Arc<flowyard::attach::Server>>,
    pub name: String,
    pub functions: Arc<Functions>,
    pub rings: Arc<flowyard::Rings>,
    /// Weights were changed: conversations have moved.
    pub reweighed: std::sync::atomic::AtomicBool,
    pub live: Vec<Arc<Live>>,
    pub ports: Vec<String>,
    pub groups: Vec<(String, u16)>,
    pub tables: Tables,
    pub kernel: crate::bpf::Kernel,
    pub maker: Box<Maker>,
    /// Largest request body that is read.
    pub longest_bytes: u64,
    /// Held from reading the files to the last replacement: what was read last is what runs last.
    pub reloading: std::sync::Mutex<()>,
}

impl Yard {
    /// Reads the function's files again and replaces it.
    pub fn reload(&self) -> Result<String> {
        let _one = self.reloading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let function = (self.maker)()?;
        let Some(function) = &function else {
            return Err(miette!("this yard was started without --steer: there is nothing to read again"));
        };
        self.functions.reload(Some(function)).map_err(|e| miette!("{e}"))?;
        Ok(function.name().to_owned())
    }

    /// Who has attached.
    fn consumers(&self) -> Value {
        let all = self.server.iter().flat_map(|server| server.consumers());
        let one = |c: flowyard::attach::Seated| {
            json!({
                "ring": c.ring, "program": c.program, "pid": c.pid, "uid": c.uid, "write": c.write,
                "seconds": c.since.elapsed().as_secs(),
            })
        };
        all.map(one).collect()
    }

    fn status(&self) -> Value {
        let sum = |f: fn(&Live) -> &std::sync::atomic::AtomicU64| -> u64 {
            self.live.iter().map(|l| f(l).load(Ordering::Relaxed)).sum()
        };
        let names = std::iter::once("").chain(self.groups.iter().skip(1).map(|(name, _)| name.as_str()));
        let functions: Vec<Value> =
            self.functions.status().iter().zip(names).map(|(status, group)| function(status, group)).collect();
        let groups: Vec<Value> =
            self.groups.iter().map(|(name, rings)| json!({"group": name, "rings": rings})).collect();
        json!({
            "name": self.name, "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(), "ports": self.ports, "groups": groups,
            "received": sum(|l| &l.received), "bytes": sum(|l| &l.bytes), "delivered": sum(|l| &l.delivered),
            "dropped": sum(|l| &l.dropped), "aside": sum(|l| &l.aside), "functions": functions,
            "tables": crate::table::list(&self.tables),
        })
    }
}

/// A function's state as JSON. `group` is empty for the yard's own.
pub fn function(status: &FunctionStatus, group: &str) -> Value {
    let c = &status.counts;
    let failures =
        Failure::ALL.iter().map(|f| (f.name().to_owned(), json!(c.failed(*f)))).collect::<serde_json::Map<_, _>>();
    let own = status.own.iter().map(|(name, n)| json!({"name": name, "count": n})).collect::<Vec<_>>();
    json!({
        "function": status.name, "group": if group.is_empty() { Value::Null } else { group.into() },
        "packets": c.packets, "built_in": c.built_in, "failures": failures, "flows_shunted": c.flows_shunted,
        "shunts_evicted": c.shunts_evicted, "reloads": c.reloads, "switched_off": c.switched_off, "own": own,
    })
}

/// The control socket, served by a thread until dropped; then the socket is removed.
pub struct Control {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
    /// Removed last.
    _socket: Socket,
}

/// A control socket that nobody serves yet: who connects waits. Removed when dropped.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes it.
    pub fn bind(path: &Path) -> Result<Socket> {
        Ok(Socket { listener: listen(path)?, path: path.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // somebody else may have done so
    }
}

impl Control {
    /// Serves the socket.
    pub fn start(socket: Socket, yard: Arc<Yard>) -> Result<Control> {
        let path = &socket.path;
        let listener = socket.listener.try_clone().map_err(|e| miette!("cannot serve {}: {e}", path.display()))?;
        let server =
            Server::from_listener(listener, None).map_err(|e| miette!("cannot serve {}: {e}", path.display()))?;
        let server = Arc::new(server);
        let serving = server.clone();
        let body = move || {
            for request in serving.incoming_requests() {
                answer(request, &yard);
            }
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(body);
        let thread = thread.map_err(|e| miette!("cannot start a thread for the control socket: {e}"))?;
        Ok(Control { server, thread: Some(thread), _socket: socket })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.server.unblock();
        let patience = Instant::now() + PATIENCE;
        let Some(thread) = self.thread.take() else { return };
        // Whoever sends half a request, or does not read the answer, keeps the thread and not the program.
        while !thread.is_finished() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            let _ = thread.join(); // a panic there was printed
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let listener = listen_at(path, SocketType::STREAM, WAITING, 0o600);
    listener
        .map(UnixListener::from)
        .map_err(|e| miette!("cannot make the control socket {}: {e}; give --control another path", path.display()))
}

pub type Answer = std::result::Result<(u16, &'static str, Vec<u8>), (u16, String)>;

fn answer(mut request: Request, yard: &Yard) {
    // A bug in answering one request is no reason to answer none any more. Nothing of a request outlives it but what
    // is behind locks, which take poisoning for what it is.
    let answer = std::panic::catch_unwind(AssertUnwindSafe(|| respond(&mut request, yard)));
    let answer = answer.unwrap_or_else(|_| {
        let what = format!("answering {} {} panicked", request.method(), request.url());
        Err((500, format!("{what}: packets flow on; please report this, with what the yard printed")))
    });
    let (code, kind, body) = answer.unwrap_or_else(|(code, error)| {
        (code, "application/json", format!("{}\n", json!({ "error": error })).into_bytes())
    });
    let header = tiny_http::Header::from_bytes("Content-Type", kind);
    let mut response =
        Response::new(StatusCode(code), Vec::new(), Cursor::new(body.as_slice()), Some(body.len()), None);
    if let Ok(header) = header {
        response.add_header(header);
    }
    let _ = request.respond(response); // who asked may be gone
}

fn respond(request: &mut Request, yard: &Yard) -> Answer {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let json = |value: Value| Ok((200, "application/json", format!("{value:#}\n").into_bytes()));
    let method = request.method().clone();
    match (&method, parts.as_slice()) {
        (Method::Get, ["status"]) => json(yard.status()),
        (Method::Post, ["reload"]) => {
            let name = yard.reload().map_err(|e| (409, e.to_string()))?;
            json(json!({ "function": name }))
        }
        (Method::Post, ["function"]) => {
            let body = body(request, yard.longest_bytes)?;
            let answers = yard.functions.control(&body).map_err(|e| (409, e.to_string()))?;
            let answers: Vec<Value> = answers
                .into_iter()
                .map(|answer| match answer {
                    Ok(bytes) => json!({"answer": String::from_utf8_lossy(&bytes)}),
                    Err(error) => json!({"error": error}),
                })
                .collect();
            json(answers.into())
        }
        (_, ["bpf", rest @ ..]) => {
            let asked = crate::bpf::Query::read(query, percent_decoded)?;
            let object = if method == Method::Put { body(request, yard.longest_bytes)? } else { Vec::new() };
            let parts: Vec<String> = rest.iter().map(|part| percent_decoded(part)).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            crate::bpf::respond(&yard.kernel, &method, &parts, &asked, &object)
        }
        (Method::Get, ["consumers"]) => json(yard.consumers()),
        (Method::Get, ["counters"]) => json(yard.counters()),
        (Method::Get, ["rings"]) => json(yard.rings()),
        (Method::Get, ["weights"]) => json(yard.weights()),
        (Method::Put, ["weights"]) => {
            let group = query.strip_prefix("group=").map(percent_decoded);
            if group.is_none() && !query.is_empty() {
                return Err((
                    400,
                    format!("the query {query:?} means nothing: write ?group=NAME, or nothing for the first"),
                ));
            }
            json(yard.reweigh(group.as_deref(), &body(request, yard.longest_bytes)?)?)
        }
        (Method::Get, ["log-level"]) => json(rings::log_level(None)?),
        (Method::Put, ["log-level"]) => json(rings::log_level(Some(&body(request, yard.longest_bytes)?))?),
        (Method::Get, ["tables"]) => json(crate::table::list(&yard.tables)),
        (_, ["tables", name]) => {
            let key = query.strip_prefix("key=").map(percent_decoded);
            if key.is_none() && !query.is_empty() {
                return Err((
                    400,
                    format!("the query {query:?} means nothing: write ?key=KEY, or nothing for all entries"),
                ));
            }
            let body = if matches!(method, Method::Put | Method::Post) {
                body(request, yard.longest_bytes)?
            } else {
                Vec::new()
            };
            crate::table::respond(&yard.tables, &method, name, key.as_deref(), &body)
        }
        (
            _,
            [
                "status" | "reload" | "function" | "tables" | "consumers" | "counters" | "rings" | "weights"
                | "log-level",
            ],
        ) => Err((405, format!("{path} does not take {method}"))),
        _ => Err((
            404,
            format!(
                "there is no {path}: /status, /counters, /rings, /consumers, /weights, /log-level, /reload, /function, \
                 /tables, /bpf"
            ),
        )),
    }
}

/// The whole body, or a refusal: never a part of it.
fn body(request: &mut Request, longest_bytes: u64) -> std::result::Result<Vec<u8>, (u16, String)> {
    let too_long =
        || (413, format!("the request's body has more than {longest_bytes} bytes: send it in several requests"));
    if request.body_length().is_some_and(|len| len as u64 > longest_bytes) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    let read = request.as_reader().take(longest_bytes + 1).read_to_end(&mut body);
    read.map_err(|e| (400, format!("the request's body: {e}")))?;
    if body.len() as u64 > longest_bytes { Err(too_long()) } else { Ok(body) }
}

/// `%XX` of a URL.
fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
        match byte {
            b'%' => {
                let mut ahead = bytes.clone();
                match (hex(ahead.next()), hex(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Characters of a value of a URL's query that need no escape.
pub fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/,".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// One request to a control socket: status code and body.
pub fn ask(path: &Path, method: &str, url: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    use std::io::Write;
    let cannot = |e: std::io::Error| {
        miette!(
            "cannot reach a yard at {}: {e}; start one with `flowyard run … --control`, or name its socket with --socket",
            path.display()
        )
    };
    let mut stream = UnixStream::connect(path).map_err(cannot)?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).map_err(cannot)?;
    let head = format!(
        "{method} {url} HTTP/1.1\r\nHost: flowyard\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(cannot)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(cannot)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let head = end.and_then(|end| std::str::from_utf8(&answer[..end]).ok());
    let code = head.and_then(|head| head.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let (Some(end), Some(head), Some(code)) = (end, head, code) else {
        return Err(miette!("{} answers, but not as a yard does", path.display()));
    };
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = &answer[end + 4..];
    Ok((code, if chunked { unchunked(body) } else { body.to_vec() }))
}

/// The body of a chunked answer (RFC 9112 section 7.1).
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let Some(chunk) = size.filter(|s| *s > 0).and_then(|s| body.get(end + 2..end + 2 + s)) else { break };
        out.extend_from_slice(chunk);
        body = body.get(end + 2 + chunk.len() + 2..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves what a yard on built-in traffic has, and runs `work` on the socket's path.
    fn served(maker: Box<Maker>, longest_bytes: u64, work: impl FnOnce(&Path)) {
        let config = flowyard::YardConfig { rings: 1, ..flowyard::YardConfig::default() };
        let port = "gen:mix?packets=1".parse().expect("a port");
        let (yard, readers) = flowyard::Yard::open(&config, &[port]).expect("it opens");
        let running = yard.start().expect("a thread");
        let yard = Yard {
            name: "yard".into(),
            functions: running.functions().clone(),
            rings: running.rings().clone(),
            reweighed: false.into(),
            live: running.live().to_vec(),
            server: None,
            ports: Vec::new(),
            groups: vec![(String::new(), 1)],
            kernel: None,
            tables: Tables::default(),
            maker,
            longest_bytes,
            reloading: std::sync::Mutex::default(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let socket = Socket::bind(&path).expect("it is made");
        let control = Control::start(socket, Arc::new(yard)).expect("it serves");
        work(&path);
        drop((control, readers));
        running.stop();
        running.join();
    }

    #[test]
    fn a_panic_while_answering_is_an_answer_and_the_next_request_has_its_own() {
        let maker = || panic!("on purpose, in a test");
        served(Box::new(maker), LONGEST_BYTES, |path| {
            for _ in 0..2 {
                let (code, answer) = ask(path, "POST", "/reload", b"").expect("an answer");
                let answer = String::from_utf8_lossy(&answer).into_owned();
                assert!(code == 500 && answer.contains("answering POST /reload panicked"), "{code} {answer}");
                assert_eq!(ask(path, "GET", "/status", b"").expect("an answer").0, 200);
            }
        });
    }

    #[test]
    fn a_body_over_the_limit_is_refused_whole_and_names_it() {
        use std::io::Write;
        served(Box::new(|| Ok(None)), 2000, |path| {
            let (code, answer) = ask(path, "POST", "/tables/none", &[b'x'; 2001]).expect("an answer");
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(code == 413 && answer.contains("more than 2000 bytes"), "{code} {answer}");
            assert_eq!(ask(path, "POST", "/tables/none", &[b'x'; 2000]).expect("an answer").0, 404, "no such table");
            // Of a length that nobody said before.
            let mut stream = UnixStream::connect(path).expect("connected");
            let head =
                "POST /tables/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
            stream.write_all(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("more than 2000 bytes"), "{answer}");
        });
    }

    #[test]
    fn the_socket_is_its_owners_alone_from_its_first_moment_on() {
        use std::os::unix::fs::MetadataExt;
        use std::sync::atomic::AtomicBool;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let done = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    if let Ok(about) = std::fs::metadata(&path) {
                        assert_eq!(about.mode() & 0o777, 0o600, "as others may find it");
                        seen += 1;
                    }
                }
                seen
            });
            for _ in 0..3000 {
                drop(listen(&path).expect("bound"));
                std::fs::remove_file(&path).expect("it is there");
            }
            done.store(true, Ordering::Relaxed);
            watch.join().expect("no assertion failed")
        });
        assert!(seen > 100, "it was looked at {seen} times");
    }

    #[test]
    fn keys_survive_the_url() {
        for key in ["10.0.0.0/8", "a b+c%", "2001:db8::1", "hex:00ff", "ключ"] {
            assert_eq!(percent_decoded(&percent_encoded(key)), key);
        }
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), b"abcde");
        assert_eq!(unchunked(b"ff\r\nabc"), b"");
    }
}
