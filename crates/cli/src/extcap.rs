//! `flowyard extcap`: rings in Wireshark's list of interfaces.
//!
//! Wireshark runs every program in its extcap folder and asks it, by options, for interfaces, their link types and
//! settings, and then to capture into a pipe (doc/extcap.4 and doc/extcap_example.py of Wireshark). The script that
//! `--install` puts there passes all of it on to this verb.

use std::path::{Path, PathBuf};

use clap::Args;
use miette::{Result, miette};

use crate::attach::Attach;
use crate::{Outcome, output};

/// Have rings of running yards appear in the interface list of Wireshark and tshark.
///
/// --install puts a script into Wireshark's folder of extcap programs and a dissector into that of personal plug-ins;
/// the other options are what Wireshark asks by.
#[derive(Debug, Args)]
pub struct Extcap {
    /// Install for this user: rings as interfaces, and flowyard.ring and others as fields
    #[arg(long, exclusive = true)]
    install: bool,
    #[arg(long, hide = true)]
    extcap_interfaces: bool,
    #[arg(long, hide = true)]
    extcap_dlts: bool,
    #[arg(long, hide = true)]
    extcap_config: bool,
    #[arg(long, hide = true, value_name = "NAME")]
    extcap_interface: Option<String>,
    #[arg(long, hide = true, value_name = "VERSION", num_args = 0..=1)]
    extcap_version: Option<Option<String>>,
    #[arg(long, hide = true, value_name = "FILTER", num_args = 0..=1)]
    extcap_capture_filter: Option<Option<String>>,
    #[arg(long, hide = true)]
    capture: bool,
    #[arg(long, hide = true, value_name = "PIPE")]
    fifo: Option<PathBuf>,
    #[arg(long, hide = true)]
    wait: bool,
}

/// What interfaces are called: this, and the ring's name.
const PREFIX: &str = "flowyard:";
const SCRIPT: &str = "#!/bin/sh\n# Rings of Flowyard as interfaces of Wireshark.\nexec \"PROGRAM\" extcap \"$@\"\n";
const DISSECTOR: &str = include_str!("../../../contrib/wireshark/flowyard.lua");

impl Extcap {
    /// Answers what is asked.
    pub fn run(self) -> Result<Outcome> {
        if self.install {
            return install();
        }
        if self.extcap_interfaces {
            let mut text = format!("extcap {{version={}}}\n", env!("CARGO_PKG_VERSION"));
            for ring in flowyard::attach::rings().into_iter().filter(|ring| ring.allowed) {
                text.push_str(&format!("interface {{value={PREFIX}{0}}}{{display=Flowyard ring {0}}}\n", ring.name));
            }
            return print(&text);
        }
        if self.extcap_version.is_some() && self.extcap_interface.is_none() {
            return print(&format!("extcap {{version={}}}\n", env!("CARGO_PKG_VERSION")));
        }
        let asked = self.extcap_interface.as_deref().unwrap_or_default();
        let Some(ring) = asked.strip_prefix(PREFIX) else {
            return Err(miette!(
                "{asked:?} is none of our interfaces, which are called {PREFIX}NAME/RING: use --install"
            ));
        };
        if self.extcap_dlts {
            // What each packet is, the capture says with its interface.
            return print("dlt {number=1}{name=EN10MB}{display=As the port gave it}\n");
        }
        if self.extcap_config {
            return print(
                "arg {number=0}{call=--wait}{display=Wait for the yard}{type=boolflag}{default=false}\
                 {tooltip=Until it runs and the ring is free, and for the next one when it ends}\n",
            );
        }
        let (true, Some(fifo)) = (self.capture, &self.fifo) else {
            return Err(miette!("nothing is asked: this verb is for Wireshark, and --install lets it know"));
        };
        if let Some(Some(filter)) =
            self.extcap_capture_filter.as_ref().filter(|f| f.as_ref().is_some_and(|f| !f.is_empty()))
        {
            return Err(miette!("capture filter {filter:?}: rings take none; use a display filter"));
        }
        Attach::into_pipe(ring, fifo, self.wait).run()
    }
}

fn print(text: &str) -> Result<Outcome> {
    use std::io::Write;
    output::written(std::io::stdout().write_all(text.as_bytes()))?;
    Ok(Outcome::Good)
}

/// Wireshark's folder of extcap programs: the personal one, which there is from version 4.2 on; before, the system's,
/// which only root may write (`tshark -G folders`). Where the environment names one, that.
fn programs(personal: &Path) -> PathBuf {
    if let Some(folder) = std::env::var_os("WIRESHARK_EXTCAP_DIR") {
        return folder.into();
    }
    let told =
        std::process::Command::new("tshark").args(["-G", "folders"]).stderr(std::process::Stdio::null()).output();
    let told = told.map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).unwrap_or_default();
    let named = |name: &str| Some(PathBuf::from(told.lines().find_map(|line| line.strip_prefix(name))?.trim()));
    named("Personal Extcap path:").or_else(|| named("Extcap path:")).unwrap_or_else(|| personal.join("extcap"))
}

/// Writes the two files.
fn install() -> Result<Outcome> {
    let home = std::env::var_os("HOME").ok_or_else(|| miette!("HOME is not set: whose Wireshark is it for?"))?;
    let library = Path::new(&home).join(".local/lib/wireshark");
    let program = std::env::current_exe().map_err(|e| miette!("cannot tell where this program is: {e}"))?;
    let script = SCRIPT.replace("PROGRAM", &program.to_string_lossy().replace(['"', '$', '`', '\\'], ""));
    let files = [
        (programs(&library), "flowyard", script.as_str(), 0o755),
        (library.join("plugins"), "flowyard.lua", DISSECTOR, 0o644),
    ];
    for (folder, name, text, mode) in files {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        let cannot = |e: std::io::Error| {
            miette!(
                "cannot write {}: {e}; name a folder of yours by WIRESHARK_EXTCAP_DIR, or run it as root",
                path.display()
            )
        };
        std::fs::create_dir_all(&folder).map_err(cannot)?;
        std::fs::write(&path, text).map_err(cannot)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(cannot)?;
        output::say(format!("wrote {}", path.display()));
    }
    output::say("rings of running yards are interfaces of Wireshark from its next start on: tshark -D lists them");
    Ok(Outcome::Good)
}
