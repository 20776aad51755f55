//! `cargo run -p arm-specs`: writes `src/azure/generated` anew.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = package.join("../src/azure/generated");
    for file in arm_specs::generate(&package.join("specs"))? {
        let path = output.join(&file.name);
        fs::write(&path, file.content).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
