//! Puts what was measured into `docs/performance.md`, between marks that carry the name of the measurement.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->`.
///
/// # Errors
///
/// The document cannot be read or written, or has no such marks.
pub(crate) fn replace(document: &Path, name: &str, text: &str) -> Result<()> {
    let old =
        fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = old
        .split_once(&begin)
        .with_context(|| format!("{} has no mark {name}", document.display()))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("{} has no end of {name}", document.display()))?;
    fs::write(
        document,
        format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()),
    )
    .with_context(|| format!("write {}", document.display()))
}

/// The machine in few words: figures of another one differ.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores, {} {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
