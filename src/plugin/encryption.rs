//! Whether the File Daemon encrypts what it stores (`PKI Encryption`), which does not work with images.
//!
//! The plugin interface gives no way to ask, and 9.6 stores blocks with offsets in plain text while it reports
//! encryption. So the daemon's configuration file is read, as far as this one directive needs it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where packages put the file, unless the command line says otherwise.
const DEFAULT_FILES: [&str; 2] = [
    "/etc/bacula/bacula-fd.conf",
    "/opt/bacula/etc/bacula-fd.conf",
];

/// The daemon's options that take a value: `-c file`, `-d level`, `-D`, `-g group`, `-u user`.
const OPTIONS_WITH_VALUE: &[u8] = b"cdDgu";

/// `@file` inside `@file` inside ...
const MAX_DEPTH: u32 = 8;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Nothing is encrypted.
    Off,
    /// `PKI Encryption = yes`, in this file or in what it includes.
    On(PathBuf),
    /// The file cannot be read, and why.
    Unknown(PathBuf, String),
}

/// Asks the configuration file of this process.
pub(super) fn of_this_daemon() -> Encryption {
    let arguments = fs::read("/proc/self/cmdline").unwrap_or_default();
    // The daemon of a separate installation reads its own file even where both exist.
    let is_separate = fs::read_link("/proc/self/exe").is_ok_and(|exe| exe.starts_with("/opt"));
    let mut defaults = DEFAULT_FILES.map(PathBuf::from);
    if is_separate {
        defaults.reverse();
    }
    let mut candidates = defaults.to_vec();
    match config_argument(&arguments) {
        // A name without a slash is looked for in the daemon's own folder.
        Some(file) if file.parent() == Some(Path::new("")) => {
            candidates
                .iter_mut()
                .for_each(|path| path.set_file_name(&file));
        }
        Some(file) => candidates = vec![file],
        None => {}
    }
    let found = candidates.iter().find(|file| file.exists());
    of_file(found.unwrap_or(&candidates[0]))
}

fn of_file(file: &Path) -> Encryption {
    let mut scan = Scan::default();
    match fs::read(file).and_then(|text| scan.text(&text, 0)) {
        Ok(()) if scan.encryption => Encryption::On(file.to_owned()),
        Ok(()) => Encryption::Off,
        Err(error) => Encryption::Unknown(file.to_owned(), error.to_string()),
    }
}

/// The configuration file in the arguments of a process, each ended by a NUL: the first that belongs to no option,
/// else the value of `-c`, which may stand behind other letters (`-fc file`).
fn config_argument(arguments: &[u8]) -> Option<PathBuf> {
    let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    let mut arguments = arguments.split(|&byte| byte == 0).skip(1);
    let mut free = None;
    let mut named = None;
    while let Some(argument) = arguments.next() {
        match argument.split_first() {
            Some((b'-', [])) | None => {}
            Some((b'-', b"-")) => free = free.or_else(|| arguments.next()),
            Some((b'-', letters)) => {
                let with_value = |letter: &u8| OPTIONS_WITH_VALUE.contains(letter);
                if let Some(at) = letters.iter().position(with_value) {
                    let (option, value) = letters.split_at(at + 1);
                    let value = if value.is_empty() {
                        arguments.next()
                    } else {
                        Some(value)
                    };
                    if option.ends_with(b"c") {
                        named = value.or(named);
                    }
                }
            }
            Some(_) => free = free.or(Some(argument)),
        }
    }
    free.or(named)
        .map(|file| PathBuf::from(OsString::from_vec(file.to_vec())))
}

/// Reads a configuration. Names of directives are compared without blanks and case; `#` outside of quotes begins a
/// comment; directives end at a line end, `;` or brace; `@` at the beginning of a word includes a file or, with a `|`,
/// what a command prints.
#[derive(Debug, Default)]
struct Scan {
    /// What stands before the next end of a directive, in lower case and without blanks.
    directive: String,
    /// The last `PKI Encryption` counts, for the daemon too.
    encryption: bool,
}

impl Scan {
    fn text(&mut self, text: &[u8], depth: u32) -> io::Result<()> {
        let text = String::from_utf8_lossy(text);
        let mut chars = text.chars().chain(['\n']);
        let mut in_word = false;
        while let Some(char) = chars.next() {
            match char {
                '#' => {
                    chars.find(|&char| char == '\n');
                    self.end();
                }
                '"' => quoted(&mut chars, |char| self.add(char)),
                '@' if !in_word => {
                    let (include, end) = include(&mut chars);
                    self.include(&include, depth)?;
                    if ends_directive(end) {
                        self.end();
                    }
                }
                end if ends_directive(end) => self.end(),
                char => self.add(char),
            }
            in_word = !(char.is_whitespace()
                || matches!(char, '@' | '#' | '=' | ',')
                || ends_directive(char));
        }
        Ok(())
    }

    fn add(&mut self, char: char) {
        if !char.is_whitespace() {
            self.directive.extend(char.to_lowercase());
        }
    }

    fn end(&mut self) {
        if let Some(("pkiencryption", value)) = self.directive.split_once('=') {
            self.encryption = matches!(value, "yes" | "true" | "on" | "1");
        }
        self.directive.clear();
    }

    fn include(&mut self, name: &str, depth: u32) -> io::Result<()> {
        let told = |error| io::Error::other(format!("@{name}: {error}"));
        if depth == MAX_DEPTH {
            return Err(told(io::Error::other("included too deeply")));
        }
        let text = match name.strip_prefix('|') {
            Some(command) => output_of(command),
            // From the daemon's folder of the moment, not that of the including file.
            None => fs::read(name),
        };
        self.text(&text.map_err(told)?, depth + 1)
    }
}

fn ends_directive(char: char) -> bool {
    matches!(char, '\n' | ';' | '{' | '}')
}

/// Hands over what stands before the closing quote; a backslash takes the next character as it is.
fn quoted(chars: &mut impl Iterator<Item = char>, mut add: impl FnMut(char)) {
    while let Some(char) = chars.next() {
        match char {
            '"' => return,
            '\\' => chars.next().into_iter().for_each(&mut add),
            char => add(char),
        }
    }
}

/// What stands after an `@`, and the character that ended it.
fn include(chars: &mut impl Iterator<Item = char>) -> (String, char) {
    let mut name = String::new();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                quoted(chars, |char| name.push(char));
                return (name, ' ');
            }
            end if end.is_whitespace() || end == ',' || ends_directive(end) => return (name, end),
            char => name.push(char),
        }
    }
    (name, '\n')
}

/// What a command of the configuration prints. The daemon runs it at each of its starts.
fn output_of(command: &str) -> io::Result<Vec<u8>> {
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("it ended with {}", output.status)));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_on(text: &str) -> bool {
        let mut scan = Scan::default();
        scan.text(text.as_bytes(), 0).expect("no includes");
        scan.encryption
    }

    #[test]
    fn the_directive_is_found_in_any_spelling() {
        for text in [
            "FileDaemon {\n  PKI Encryption = yes\n}",
            "filedaemon { name = x; pkiencryption=Yes }",
            "Client {\n Pki  Encryption = \"yes\" # really\n}",
            "Client { PKI Encryption = yes# really\n}",
            "Client { Password = \"a@b \\\" c\"; PKI Encryption = yes }",
            "Client { Name = a@b; PKI Encryption = yes }",
        ] {
            assert!(is_on(text), "{text}");
        }
        for text in [
            "",
            "FileDaemon {\n  PKI Signatures = yes\n}",
            "FileDaemon {\n  # PKI Encryption = yes\n}",
            "FileDaemon {\n  # \"\n PKI Encryption = no\n}",
            "Messages { MailCommand = \"a ; PKI Encryption = yes ; b\" }",
            "Messages { MailCommand = \"a \\\" ; PKI Encryption = yes ; b\" }",
        ] {
            assert!(!is_on(text), "{text}");
        }
    }

    #[test]
    fn the_file_is_the_one_of_the_command_line() {
        let cases: [(&[u8], Option<&str>); 10] = [
            (
                b"/usr/sbin/bacula-fd\0-f\0-c\0/x/fd.conf\0",
                Some("/x/fd.conf"),
            ),
            (b"bacula-fd\0-c/x/fd.conf\0", Some("/x/fd.conf")),
            (b"bacula-fd\0-fPc\0/x/fd.conf\0", Some("/x/fd.conf")),
            (b"bacula-fd\0-fc/x/fd.conf\0-d\0high\0", Some("/x/fd.conf")),
            (b"bacula-fd\0-uc\0-gc\0-c\0/x/fd.conf\0", Some("/x/fd.conf")),
            (b"bacula-fd\0-c\0/x/a.conf\0/x/b.conf\0", Some("/x/b.conf")),
            (b"bacula-fd\0-f\0--\0/x/b.conf\0", Some("/x/b.conf")),
            (b"bacula-fd\0-u\0bacula\0-f\0", None),
            (b"bacula-fd\0-c\0", None),
            (b"", None),
        ];
        for (arguments, file) in cases {
            let found = config_argument(arguments);
            assert_eq!(
                found,
                file.map(PathBuf::from),
                "{}",
                arguments.escape_ascii()
            );
        }
    }

    #[test]
    fn what_is_included_counts_and_what_is_missing_is_told() {
        let dir = tempfile::tempdir().expect("folder");
        let path = |name: &str| dir.path().join(name);
        let included = path("pki.conf");
        fs::write(&included, "PKI Encryption = yes\n").expect("write");
        let included = included.display();
        for (text, on) in [
            (format!("FileDaemon {{\n@{included}\n}}\n"), true),
            (
                format!("FileDaemon {{ Name = x; @\"{included}\"\n }}"),
                true,
            ),
            (format!("FileDaemon {{ @|\"cat {included}\"\n}}"), true),
            (
                "FileDaemon { PKI Encryption = @|\"echo \\\"yes\\\"\"\n}".to_owned(),
                true,
            ),
            (format!("FileDaemon {{\n#@{included}\n}}"), false),
        ] {
            fs::write(path("fd.conf"), &text).expect("write");
            let expected = if on {
                Encryption::On(path("fd.conf"))
            } else {
                Encryption::Off
            };
            assert_eq!(of_file(&path("fd.conf")), expected, "{text}");
        }
        for (text, words) in [
            ("@/nowhere/at.all\n", "@/nowhere/at.all"),
            ("@|false\n", "@|false"),
        ] {
            fs::write(path("fd.conf"), text).expect("write");
            let Encryption::Unknown(_, reason) = of_file(&path("fd.conf")) else {
                panic!("{text}");
            };
            assert!(reason.contains(words), "{reason}");
        }
        assert!(matches!(
            of_file(&path("none.conf")),
            Encryption::Unknown(..)
        ));
    }
}
