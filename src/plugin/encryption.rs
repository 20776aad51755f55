//! Whether the File Daemon encrypts what it stores (`PKI Encryption`), which does not work with images.
//!
//! The plugin interface gives no way to ask, and 9.6 stores blocks with offsets in plain text while it reports
//! encryption. So the daemon's configuration file is read, as far as this one directive needs it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Where packages put the file, unless `-c` says otherwise.
const DEFAULT_FILES: [&str; 2] = [
    "/etc/bacula/bacula-fd.conf",
    "/opt/bacula/etc/bacula-fd.conf",
];

/// `@file` inside `@file` inside ...
const MAX_DEPTH: u32 = 8;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Nothing is encrypted.
    Off,
    /// `PKI Encryption = yes`, in this file.
    On(PathBuf),
    /// The file cannot be read, and why.
    Unknown(PathBuf, String),
}

/// Asks the configuration file of this process.
pub(super) fn of_this_daemon() -> Encryption {
    let arguments = fs::read("/proc/self/cmdline").unwrap_or_default();
    // The daemon of a separate installation reads its own file even where both exist.
    let is_separate = fs::read_link("/proc/self/exe").is_ok_and(|exe| exe.starts_with("/opt"));
    let mut files = DEFAULT_FILES.map(PathBuf::from);
    if is_separate {
        files.reverse();
    }
    let file = match config_argument(&arguments) {
        // A name without a slash is looked for in the daemon's own folder.
        Some(file) if file.parent() == Some(Path::new("")) => files
            .into_iter()
            .map(|default| default.with_file_name(&file))
            .find(|file| file.exists()),
        Some(file) => Some(file),
        None => files.into_iter().find(|file| file.exists()),
    };
    match file {
        Some(file) => of_file(&file),
        // Not started as a File Daemon usually is: nothing can be said, and nothing is known to be wrong.
        None => Encryption::Off,
    }
}

fn of_file(file: &Path) -> Encryption {
    match read(file, 0) {
        Ok(text) if is_on(&text) => Encryption::On(file.to_owned()),
        Ok(_) => Encryption::Off,
        Err(error) => Encryption::Unknown(file.to_owned(), error.to_string()),
    }
}

/// The value of `-c` in the arguments of a process, each ended by a NUL.
fn config_argument(arguments: &[u8]) -> Option<PathBuf> {
    let mut arguments = arguments.split(|&byte| byte == 0).skip(1);
    while let Some(argument) = arguments.next() {
        let Some(value) = argument.strip_prefix(b"-c") else {
            continue;
        };
        let value = if value.is_empty() {
            arguments.next()?
        } else {
            value
        };
        return Some(PathBuf::from(OsString::from_vec(value.to_vec())));
    }
    None
}

/// The text of `file`, with `@file` lines replaced by what they name.
fn read(file: &Path, depth: u32) -> io::Result<String> {
    let mut text = String::new();
    for line in String::from_utf8_lossy(&fs::read(file)?).lines() {
        match line.trim_start().strip_prefix('@') {
            Some(include) if depth < MAX_DEPTH && !include.starts_with('|') => {
                let name = include.trim().trim_matches('"');
                text.push_str(&read(&file.with_file_name(name), depth + 1)?);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

/// Whether `PKI Encryption` is set to yes. Names of directives are compared without blanks and case; `#` outside of
/// quotes begins a comment; directives end at a line end, `;` or brace.
fn is_on(text: &str) -> bool {
    let mut quoted = false;
    let mut comment = false;
    let mut directive = String::new();
    let mut found = false;
    for char in text.chars().chain(['\n']) {
        match char {
            '\n' => comment = false,
            _ if comment => continue,
            '"' => quoted = !quoted,
            '#' if !quoted => {
                comment = true;
                continue;
            }
            _ => {}
        }
        if matches!(char, '\n' | ';' | '{' | '}') && !quoted {
            if let Some((name, value)) = directive.split_once('=')
                && name == "pkiencryption"
            {
                // The last one counts for the daemon, too.
                found = matches!(value, "yes" | "true" | "on" | "1");
            }
            directive.clear();
        } else if !char.is_whitespace() && char != '"' {
            directive.extend(char.to_lowercase());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directive_is_found_in_any_spelling() {
        for text in [
            "FileDaemon {\n  PKI Encryption = yes\n}",
            "filedaemon { name = x; pkiencryption=Yes }",
            "Client {\n Pki  Encryption = \"yes\" # really\n}",
        ] {
            assert!(is_on(text), "{text}");
        }
        for text in [
            "",
            "FileDaemon {\n  PKI Signatures = yes\n}",
            "FileDaemon {\n  # PKI Encryption = yes\n}",
            "FileDaemon {\n  PKI Encryption = no\n}",
            "Messages { MailCommand = \"a ; PKI Encryption = yes ; b\" }",
        ] {
            assert!(!is_on(text), "{text}");
        }
    }

    #[test]
    fn the_file_is_the_one_of_the_command_line() {
        let of = |arguments: &[u8]| config_argument(arguments);
        assert_eq!(
            of(b"/usr/sbin/bacula-fd\0-f\0-c\0/x/fd.conf\0"),
            Some("/x/fd.conf".into())
        );
        assert_eq!(of(b"bacula-fd\0-c/x/fd.conf\0"), Some("/x/fd.conf".into()));
        assert_eq!(of(b"bacula-fd\0-f\0"), None);
    }

    #[test]
    fn included_files_count_and_missing_ones_are_told() {
        let dir = tempfile::tempdir().expect("folder");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("pki.conf"), "PKI Encryption = yes\n").expect("write");
        fs::write(path("fd.conf"), "FileDaemon {\n@pki.conf\n}\n").expect("write");
        assert_eq!(of_file(&path("fd.conf")), Encryption::On(path("fd.conf")));
        assert!(matches!(
            of_file(&path("none.conf")),
            Encryption::Unknown(..)
        ));
    }
}
