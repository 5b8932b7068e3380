//! Relative paths in the file are relative to the file.

use std::path::Path;

type Way = fn(&Path, &str) -> String;

/// Options whose values name files, and how.
const WITH_PATHS: [(&str, Way); 7] = [
    ("output", join),
    ("policy_file", join),
    ("control", join),
    ("attach", join),
    ("functions", function),
    ("table_files", behind_equals),
    ("ports", port),
];

/// The value of the option `id` as if it had been written in the folder of the file.
pub fn rebased(id: &str, folder: &Path, value: &str) -> String {
    WITH_PATHS.iter().find(|(known, _)| *known == id).map_or_else(|| value.to_owned(), |(_, way)| way(folder, value))
}

#[cfg(test)]
pub fn is_known(id: &str) -> bool {
    WITH_PATHS.iter().any(|(known, _)| *known == id)
}

/// The path itself.
fn join(folder: &Path, path: &str) -> String {
    folder.join(path).display().to_string()
}

/// `KIND:FILE?config=FILE`.
fn function(folder: &Path, value: &str) -> String {
    let Some((kind, file)) = value.split_once(':') else { return value.to_owned() };
    if file.is_empty() {
        return value.to_owned(); // refused as it is
    }
    match file.split_once("?config=") {
        Some((file, config)) => format!("{kind}:{}?config={}", join(folder, file), join(folder, config)),
        None => format!("{kind}:{}", join(folder, file)),
    }
}

/// `TABLE=FILE`.
fn behind_equals(folder: &Path, value: &str) -> String {
    value.split_once('=').map_or_else(|| value.to_owned(), |(table, file)| format!("{table}={}", join(folder, file)))
}

/// `pcap:FILE` (`-` is standard input), and the journal's folder of others.
fn port(folder: &Path, value: &str) -> String {
    match value.split_once(':') {
        Some(("pcap", file)) if !file.is_empty() && file.split('?').next() != Some("-") => {
            format!("pcap:{}", join(folder, file))
        }
        Some(_) => {
            let Some((head, tail)) = value.split_once("journal=") else { return value.to_owned() };
            let (path, rest) = tail.split_at(tail.find('&').unwrap_or(tail.len()));
            format!("{head}journal={}{rest}", join(folder, path))
        }
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_file_is_found_beside_the_configuration() {
        let folder = Path::new("/etc/fy");
        for (id, value, becomes) in [
            ("output", "out", "/etc/fy/out"),
            ("output", "/out", "/out"),
            ("functions", "rules:r.toml", "rules:/etc/fy/r.toml"),
            ("functions", "plugin:p.so?config=/c", "plugin:/etc/fy/p.so?config=/c"),
            ("functions", "kernel", "kernel"),
            ("table_files", "users=u.csv", "users=/etc/fy/u.csv"),
            ("ports", "pcap:a.pcap?times=2", "pcap:/etc/fy/a.pcap?times=2"),
            ("ports", "pcap:-", "pcap:-"),
            ("ports", "xdp:eth0?keep&journal=j&copy", "xdp:eth0?keep&journal=/etc/fy/j&copy"),
            ("ports", "gen:mix", "gen:mix"),
            ("name", "yard", "yard"),
        ] {
            assert_eq!(rebased(id, folder, value), becomes, "{id} {value}");
        }
    }
}
