//! Whether the File Daemon encrypts what it stores (`PKI Encryption`), which does not work with images.
//!
//! The plugin interface gives no way to ask, and 9.6 stores blocks with offsets in plain text while it reports
//! encryption. So the daemon's configuration file is read, as far as this one directive needs it. That includes to run the
//! commands whose output is part of it (`@|command`), as the daemon does at each of its starts.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::iter;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use super::bridge::Bridge;
use crate::process_group::ProcessGroup;

/// Where packages put the file, unless the command line says otherwise.
const DEFAULT_FILES: [&str; 2] = [
    "/etc/bacula/bacula-fd.conf",
    "/opt/bacula/etc/bacula-fd.conf",
];

/// The daemon's options that take a value: `-c file`, `-d level`, `-D`, `-g group`, `-u user`.
const OPTIONS_WITH_VALUE: &[u8] = b"cdDgu";

/// `@file` inside `@file` inside ...
const MAX_DEPTH: u32 = 8;

/// How long a command may take. The daemon waits for ever, which somebody sees at its start; in a job nobody would.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Far more than a configuration has.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

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

/// Asks the configuration file of this process. Waits for commands in it end when the job is cancelled.
pub(super) fn of_this_daemon(bridge: &Bridge) -> Encryption {
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
    of_file(found.unwrap_or(&candidates[0]), bridge)
}

fn of_file(file: &Path, bridge: &Bridge) -> Encryption {
    let mut scan = Scan::new(bridge);
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
#[derive(Debug)]
struct Scan<'a> {
    /// Where commands are waited for.
    bridge: &'a Bridge,
    /// What stands before the next end of a directive, in lower case and without blanks.
    directive: String,
    /// The last `PKI Encryption` counts, for the daemon too.
    encryption: bool,
}

impl<'a> Scan<'a> {
    fn new(bridge: &'a Bridge) -> Self {
        Self {
            bridge,
            directive: String::new(),
            encryption: false,
        }
    }

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
            Some(command) => {
                // Started outside of the bridge, which blocks signals: the command would inherit that.
                start(command).and_then(|group| {
                    let output = self.bridge.race(output_of(group));
                    output.unwrap_or_else(|| Err(io::Error::other("the job was cancelled")))
                })
            }
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

/// Starts a command of the configuration, with the daemon's environment.
fn start(command: &str) -> io::Result<ProcessGroup> {
    let mut words = words(command);
    let program = words.next().ok_or_else(|| io::Error::other("no command"))?;
    ProcessGroup::start(Command::new(program).args(words))
}

/// What it prints; an error if it does not end well.
async fn output_of(mut group: ProcessGroup) -> io::Result<Vec<u8>> {
    let output = async {
        let bytes = group.output(MAX_OUTPUT_BYTES as u64 + 1).await?;
        if bytes.len() > MAX_OUTPUT_BYTES {
            let problem = format!("it prints more than {MAX_OUTPUT_BYTES} bytes");
            return Err(io::Error::other(problem));
        }
        group.success().await?;
        Ok(bytes)
    };
    timeout(COMMAND_LIMIT, output).await.unwrap_or_else(|_| {
        let problem = format!("it has not ended after {} s", COMMAND_LIMIT.as_secs());
        Err(io::Error::other(problem))
    })
}

/// A program and its arguments, as the daemon takes a command apart (`build_argc_argv` in its `bpipe.c`, 9.6 and 15.0): at blanks, or
/// from one quote to the next. There is no shell, and a quote inside of a word is part of it.
fn words(command: &str) -> impl Iterator<Item = &str> {
    let mut rest = command;
    iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t']);
        let (word, behind) = match rest.chars().next()? {
            quote @ ('"' | '\'') => {
                let inside = rest.strip_prefix(quote)?;
                inside.split_once(quote).unwrap_or((inside, ""))
            }
            _ => rest.split_once(' ').unwrap_or((rest, "")),
        };
        rest = behind;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn bridge() -> Bridge {
        Bridge::start(CancellationToken::new(), None).expect("threads")
    }

    fn is_on(text: &str) -> bool {
        let bridge = bridge();
        let mut scan = Scan::new(&bridge);
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
        let bridge = bridge();
        let of_file = |file: &Path| of_file(file, &bridge);
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

    #[test]
    fn a_command_is_run_without_a_shell_as_the_daemon_does() {
        for (command, expected) in [
            ("cat /a/b", &["cat", "/a/b"][..]),
            ("  cat\t x  y ", &["cat\t", "x", "y"]),
            (
                "sh -c 'echo \"a  b\"; true' z",
                &["sh", "-c", "echo \"a  b\"; true", "z"],
            ),
            ("\"/a b/c\" d'e f", &["/a b/c", "d'e", "f"]),
            ("echo 'open end", &["echo", "open end"]),
            (" ", &[]),
        ] {
            assert_eq!(words(command).collect::<Vec<_>>(), expected, "{command}");
        }
    }

    async fn output(command: &str) -> io::Result<Vec<u8>> {
        output_of(start(command)?).await
    }

    #[tokio::test]
    async fn a_command_that_prints_without_end_is_ended() {
        let line = "yes PKI Encryption = yes";
        let error = output(line).await.expect_err("too much");
        assert_eq!(error.to_string(), "it prints more than 1048576 bytes");
        let output = output("head -c 1048576 /dev/zero").await;
        assert_eq!(output.expect("just enough").len(), MAX_OUTPUT_BYTES);
    }

    /// The clock is paused: it goes on as soon as everything waits.
    #[tokio::test(start_paused = true)]
    async fn a_command_that_hangs_is_ended() {
        for hangs in ["sleep 1000", "sh -c 'exec >&-; sleep 1000'"] {
            let error = output(hangs).await.expect_err("no end");
            assert_eq!(error.to_string(), "it has not ended after 30 s", "{hangs}");
        }
    }

    /// So that it can be ended like any other program.
    #[test]
    fn a_command_has_no_signal_blocked() {
        let free = "grep -q '^SigBlk:.0000000000000000$' /proc/self/status && echo yes";
        let text = format!("FileDaemon {{ PKI Encryption = @|\"sh -c \\\"{free}\\\"\"\n}}");
        assert!(is_on(&text), "{text}");
    }

    #[test]
    fn a_command_that_hangs_does_not_hold_up_a_cancel() {
        let cancel = CancellationToken::new();
        let bridge = Bridge::start(cancel.clone(), None).expect("threads");
        let dir = tempfile::tempdir().expect("folder");
        let (file, started) = (dir.path().join("fd.conf"), dir.path().join("started"));
        let hangs = format!("sh -c 'echo > {}; sleep 1000'", started.display());
        fs::write(&file, format!("@|\"{hangs}\"\n")).expect("write");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| of_file(&file, &bridge));
            while !started.exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            cancel.cancel();
            let Encryption::Unknown(_, reason) = asked.join().expect("no panic") else {
                panic!("it waited for the command");
            };
            assert!(reason.ends_with("the job was cancelled"), "{reason}");
        });
    }
}
