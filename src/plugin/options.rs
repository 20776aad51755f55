//! What a user can enter at restore: `mod`, `Plugin Options` in bconsole.
//!
//! At backup the plugin stores a template as an object; the Director asks for the values and sends them back before
//! the files of the restore, as `key=value` lines with comments.

use std::collections::BTreeMap;

use super::error::Error;
use super::host::{RestoreObject, SaveFile};
use crate::secret::Secret;

/// The one name under which daemons recognise options.
const OBJECT_NAME: &str = "RestoreOptions";

/// What can be entered: the parameter, the question, and what is shown as its default.
const ITEMS: [(&str, &str, &str); 5] = [
    (
        "new_hostname",
        "Name of the restored virtual machine",
        "the saved name",
    ),
    (
        "group",
        "Group of the configuration file with the access values of this restore",
        "as saved",
    ),
    (
        "config",
        "Configuration file on the restoring File Daemon",
        "as saved",
    ),
    (
        "verify",
        "Read the restored disks back and compare them: yes or no",
        "no",
    ),
    (
        "debug",
        "Debug level; 9 keeps the local disk files",
        "as saved",
    ),
];

/// Options that a user has entered, by parameter. They beat the Plugin line and the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RestoreOptions(BTreeMap<&'static str, String>);

/// The object that goes before the files of a Plugin line.
pub(super) fn template() -> SaveFile {
    // The daemons replace `@STR@` with what the user enters.
    let mut template: String = ITEMS
        .iter()
        .map(|(key, prompt, default)| {
            format!("OptPrompt=\"{prompt}\"\nOptDefault=\"{default}\"\n{key}=@STR@\n\n")
        })
        .collect();
    // 9.6 with SQLite loses objects whose stored length is 1 modulo 3.
    while template.len() % 3 == 1 {
        template.push('\n');
    }
    SaveFile::Options {
        name: OBJECT_NAME,
        template,
    }
}

impl RestoreOptions {
    /// Adds what `object` says, if it carries options at all.
    ///
    /// # Errors
    ///
    /// The text was lost on its way, says nothing that is known here, or contradicts an earlier object (one comes per
    /// job that is restored).
    pub(super) fn add(&mut self, object: &RestoreObject<'_>) -> Result<(), Error> {
        if !object.is_filled_options || object.name != OBJECT_NAME {
            return Ok(());
        }
        if object.content.is_empty() && object.len > 0 {
            return Err(Error::Options(format!(
                "{} bytes were announced and none came (Directors of version 9.6 with SQLite lose some texts); lengthen \
                 or shorten a value by a character, or set new_hostname in the configuration file",
                object.len
            )));
        }
        for line in object.content.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| Error::Options(format!("{line:?} is no key=value line")))?;
            let Some((key, ..)) = ITEMS.iter().find(|(known, ..)| *known == key.trim()) else {
                let known = ITEMS.map(|(known, ..)| known).join(", ");
                return Err(Error::Options(format!(
                    "{} is not known to this version, which has {known}",
                    key.trim()
                )));
            };
            let value = unquote(value.trim());
            if value.is_empty() {
                continue;
            }
            match self.0.get(key) {
                Some(before) if *before != value => {
                    return Err(Error::Options(format!(
                        "{key} is given as {before:?} and as {value:?}; one virtual machine is restored per job"
                    )));
                }
                Some(_) => {}
                None => {
                    self.0.insert(key, value);
                }
            }
        }
        Ok(())
    }

    /// As parameters.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (String, Secret)> {
        self.0
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Secret::new(value.clone())))
    }
}

/// Strings come back in quotes, with `\` before a quote inside.
fn unquote(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.extend(chars.next()),
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(content: &str) -> RestoreObject<'_> {
        RestoreObject {
            is_filled_options: true,
            name: OBJECT_NAME.into(),
            command: "azure-vm:".into(),
            content: content.into(),
            len: content.len(),
        }
    }

    #[test]
    fn the_template_survives_sqlite_and_is_small() {
        let SaveFile::Options { template, .. } = template() else {
            panic!("not an object");
        };
        assert_ne!(template.len() % 3, 1);
        assert!(template.len() <= 1000, "the host would compress it");
    }

    #[test]
    fn a_value_is_read_as_the_daemons_write_it() {
        let mut options = RestoreOptions::default();
        let text = "# Name of the restored virtual machine\nnew_hostname=\"a\\\"b\\\\c\"\n\n";
        options.add(&filled(text)).expect("good");
        options
            .add(&filled("group=lab\ndebug=\"9\"\nconfig=\"\"\n"))
            .expect("others");
        let pairs: Vec<_> = options
            .pairs()
            .map(|(key, value)| format!("{key}={}", value.expose()))
            .collect();
        assert_eq!(pairs, ["debug=9", "group=lab", "new_hostname=a\"b\\c"]);
        // Once per job of the chain.
        options.add(&filled(text)).expect("the same again");
        assert!(options.add(&filled("new_hostname=\"x\"")).is_err());
    }

    #[test]
    fn a_lost_text_is_not_ignored() {
        let mut options = RestoreOptions::default();
        let lost = RestoreObject {
            len: 64,
            ..filled("")
        };
        assert!(options.add(&lost).is_err());
        let template = RestoreObject {
            is_filled_options: false,
            ..lost
        };
        options.add(&template).expect("not the user's options");
        options.add(&filled("")).expect("nothing was entered");
        assert_eq!(options, RestoreOptions::default());
    }

    #[test]
    fn unknown_lines_are_refused() {
        let mut options = RestoreOptions::default();
        assert!(options.add(&filled("new_hostnam=x")).is_err());
        assert!(options.add(&filled("something")).is_err());
    }
}
