//! The program as tests run it: once, or as a yard with a control socket.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_flowyard");

pub fn flowyard(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().expect("the program runs")
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{}", errors(output)))
}

/// A running yard with a control socket.
pub struct Yard {
    pub child: Child,
    pub socket: PathBuf,
}

impl Yard {
    pub fn start(dir: &Path, args: &[&str]) -> Yard {
        let yard = Yard::spawn(dir, args);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !yard.ctl(&["status"]).status.success() {
            assert!(Instant::now() < deadline, "no control socket: {}", errors(&yard.ctl(&["status"])));
            std::thread::sleep(Duration::from_millis(20));
        }
        yard
    }

    /// Starts it, and does not wait for its socket.
    pub fn spawn(dir: &Path, args: &[&str]) -> Yard {
        let socket = dir.join("control.sock");
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--json", &format!("--control={}", socket.display())]).args(args);
        command.env("FLOWYARD_RUNTIME_DIR", dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        Yard { child, socket }
    }

    pub fn ctl(&self, args: &[&str]) -> Output {
        let socket = self.socket.display().to_string();
        flowyard(&[&["ctl", "--socket", &socket], args].concat())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    /// Ends it, and answers its figures, its status and what it said.
    pub fn end(mut self) -> (Value, i32, String) {
        self.signal("-INT");
        let (mut text, mut said) = (String::new(), String::new());
        self.child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("it ends");
        assert!(!self.socket.exists(), "the socket is removed");
        let figures = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{said}"));
        (figures, status.code().expect("no signal"), said)
    }
}
