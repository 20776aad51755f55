//! Lines for the job log.

use super::host::{Host, MessageClass};
use crate::notice::{Notice, Notices, Severity};

/// Begins every message.
const PREFIX: &str = "azure-vm: ";

/// Room in the host's message buffer, in bytes; longer texts would be cut by the host, perhaps inside a character.
const MAX_LEN: usize = 2000;

/// Sends `text`, a message per line of it.
pub(super) fn send(host: &dyn Host, class: MessageClass, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        host.message(class, &format_line(line));
    }
}

/// Sends what the core has left. To be called on the job's thread before every return to the host.
pub(super) fn drain(host: &dyn Host, notices: &Notices) {
    while let Some(Notice { severity, text }) = notices.pop() {
        let class = match severity {
            Severity::Info => MessageClass::Info,
            Severity::Warning => MessageClass::Warning,
            Severity::Error => MessageClass::Error,
        };
        send(host, class, &text);
    }
}

fn format_line(line: &str) -> String {
    const CUT: &str = "...";
    // One for the line end, one for the NUL that the host adds.
    let room = MAX_LEN - PREFIX.len() - 2;
    let (line, cut) = if line.len() <= room {
        (line, "")
    } else {
        (&line[..line.floor_char_boundary(room - CUT.len())], CUT)
    };
    format!("{PREFIX}{line}{cut}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::FakeHost;

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = format_line(&"ü".repeat(5000));
        assert!(line.len() < MAX_LEN && line.len() > MAX_LEN - 8);
        assert!(line.starts_with("azure-vm: ü") && line.ends_with("ü...\n"));
        assert_eq!(format_line("short"), "azure-vm: short\n");
    }

    #[test]
    fn every_line_has_the_prefix_and_its_class() {
        let host = FakeHost::default();
        let notices = Notices::default();
        notices.info("one");
        notices.error("two\n\nthree\n");
        drain(&host, &notices);
        assert_eq!(
            host.messages(),
            [
                (MessageClass::Info, "azure-vm: one\n".to_owned()),
                (MessageClass::Error, "azure-vm: two\n".to_owned()),
                (MessageClass::Error, "azure-vm: three\n".to_owned()),
            ]
        );
    }
}
