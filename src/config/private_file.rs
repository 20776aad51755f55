//! Files that hold secrets: the configuration file, and files of a single secret.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::secret::Secret;

/// More than this is no secret of Azure.
const LARGEST_SECRET: u64 = 64 * 1024;

/// The text of a file.
pub(super) struct PrivateText {
    pub(super) text: Zeroizing<String>,
    /// Everybody on this host may read it.
    pub(super) world_readable: bool,
}

/// Reads a text of at most `largest` bytes; `None` if there is no such file.
///
/// # Errors
///
/// Why it cannot be read; without any of its content.
pub(super) fn read(path: &Path, largest: u64) -> Result<Option<PrivateText>, String> {
    // Asked before opening, which would wait on a pipe.
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    // Room for all of it at once: a buffer that grows leaves copies of secrets behind.
    let capacity = metadata.len().min(largest) + 1;
    let mut text = Zeroizing::new(String::with_capacity(
        usize::try_from(capacity).unwrap_or(0),
    ));
    file.take(largest + 1)
        .read_to_string(&mut text)
        .map_err(|error| {
            if error.kind() == ErrorKind::InvalidData {
                "it is not UTF-8 text".to_owned()
            } else {
                error.to_string()
            }
        })?;
    if text.len() as u64 > largest {
        return Err(format!("it is larger than {largest} bytes"));
    }
    Ok(Some(PrivateText {
        text,
        world_readable: metadata.permissions().mode() & 0o004 != 0,
    }))
}

/// Reads a file whose only line is a secret, and says whether everybody may read it.
///
/// # Errors
///
/// Why there is no secret to be had; without any of the file's content.
pub(super) fn read_secret(path: &Path) -> Result<(Secret, bool), String> {
    let file = read(path, LARGEST_SECRET)?.ok_or("there is no such file")?;
    let line = file.text.strip_suffix('\n').unwrap_or(&file.text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("it is empty".to_owned());
    }
    if line.contains(char::is_control) {
        return Err("it holds more than one line, or a control character".to_owned());
    }
    Ok((Secret::new(line.to_owned()), file.world_readable))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_secret_is_the_only_line_of_its_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("secret");
        for (text, want) in [
            ("hunter2", Ok("hunter2")),
            ("hunter2\n", Ok("hunter2")),
            ("hunter2\r\n", Ok("hunter2")),
            (" #'\"\\~=;ä \n", Ok(" #'\"\\~=;ä ")),
            ("", Err("it is empty")),
            ("\n", Err("it is empty")),
            (
                "hunter2\n\n",
                Err("it holds more than one line, or a control character"),
            ),
            (
                "a\0b",
                Err("it holds more than one line, or a control character"),
            ),
        ] {
            fs::write(&path, text).unwrap();
            let read = read_secret(&path).map(|(secret, _)| secret.expose().to_owned());
            assert_eq!(
                read,
                want.map(str::to_owned).map_err(str::to_owned),
                "{text:?}"
            );
        }
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_secret(&path).unwrap_err(), "it is not UTF-8 text");
        fs::write(&path, "x".repeat(64 * 1024 + 1)).unwrap();
        assert_eq!(
            read_secret(&path).unwrap_err(),
            "it is larger than 65536 bytes"
        );
        assert_eq!(
            read_secret(dir.path()).unwrap_err(),
            "it is not a regular file"
        );
        assert_eq!(
            read_secret(&dir.path().join("missing")).unwrap_err(),
            "there is no such file"
        );
    }

    #[test]
    fn a_file_for_everybody_is_noticed() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_secret(&path).unwrap().1, open, "{mode:o}");
        }
    }
}
