//! Names under which a VM's files stand in the catalog (user contract, section 7.3).
//!
//! ```text
//! /@azure-vm/<vmUuid>_<vmName>.name      empty; lets people find the UUID of a name
//! /@azure-vm/<vmUuid>/<epoch>_conf       the configuration document
//! /@azure-vm/<vmUuid>/<epoch>_osdisk     the OS disk
//! /@azure-vm/<vmUuid>/<epoch>_<index>    a data disk; the index is its place in LUN order, a label only
//! /@azure-vm/<vmUuid>/<epoch>_digests    the digests of the images
//! ```

use uuid::Uuid;

/// What every name begins with.
pub const ROOT: &str = "/@azure-vm/";

/// Most bytes of a VM's name; a file system has room for 255 with the rest of the component.
const LONGEST_NAME: usize = 200;

/// A name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogName {
    /// The empty file that shows a VM's name.
    Label {
        /// The VM's UUID.
        vm: Uuid,
    },
    /// The configuration document.
    Document {
        /// The VM's UUID.
        vm: Uuid,
        /// Seconds since 1970 of the run.
        epoch: u64,
    },
    /// The digests of the images.
    Digests {
        /// The VM's UUID.
        vm: Uuid,
        /// Seconds since 1970 of the run.
        epoch: u64,
    },
    /// An image.
    Image {
        /// The VM's UUID.
        vm: Uuid,
        /// Seconds since 1970 of the run.
        epoch: u64,
        /// Last component, `<epoch>_osdisk` or `<epoch>_<index>`: what the configuration document calls it.
        file: String,
    },
}

impl CatalogName {
    /// Takes a name apart. What stands before [`ROOT`] (a `where=` of the job, a folder) is ignored.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let inner = &path[path.rfind(ROOT)? + ROOT.len()..];
        let Some((folder, file)) = inner.split_once('/') else {
            let label = inner.strip_suffix(".name")?;
            let (vm, name) = label.split_once('_')?;
            return (!name.is_empty())
                .then_some(())
                .and_then(|()| hyphenated(vm))
                .map(|vm| Self::Label { vm });
        };
        let vm = hyphenated(folder)?;
        let (digits, role) = file.split_once('_')?;
        let epoch = decimal(digits)?;
        match role {
            "conf" => Some(Self::Document { vm, epoch }),
            "digests" => Some(Self::Digests { vm, epoch }),
            "osdisk" => Some(Self::Image {
                vm,
                epoch,
                file: file.to_owned(),
            }),
            index => decimal(index).map(|_| Self::Image {
                vm,
                epoch,
                file: file.to_owned(),
            }),
        }
    }

    /// Whose file it is.
    #[must_use]
    pub fn vm(&self) -> Uuid {
        match self {
            Self::Label { vm }
            | Self::Document { vm, .. }
            | Self::Digests { vm, .. }
            | Self::Image { vm, .. } => *vm,
        }
    }
}

/// The name of the file that shows a VM's name. What would lead out of its folder or end its line is replaced and what is
/// too long for a file is left out, though no such name comes from Azure.
#[must_use]
pub fn label(vm_uuid: &str, vm_name: &str) -> String {
    let name = component(vm_name);
    let name = &name[..name.floor_char_boundary(LONGEST_NAME)];
    format!("{ROOT}{vm_uuid}_{name}.name")
}

/// `name` with what would lead out of a folder or end a line replaced.
pub(crate) fn component(name: &str) -> String {
    let one = |c: char| if c.is_control() || c == '/' { '_' } else { c };
    name.chars().map(one).collect()
}

/// The name of a configuration document.
#[must_use]
pub fn document(vm_uuid: &str, epoch: u64) -> String {
    image(vm_uuid, &format!("{epoch}_conf"))
}

/// The name of the digests of a run.
#[must_use]
pub fn digests(vm_uuid: &str, epoch: u64) -> String {
    image(vm_uuid, &format!("{epoch}_digests"))
}

/// The name of the image whose last component is `file`.
#[must_use]
pub fn image(vm_uuid: &str, file: &str) -> String {
    format!("{ROOT}{vm_uuid}/{file}")
}

/// The last component of an image: the OS disk without, a data disk with its place in LUN order.
#[must_use]
pub fn image_file(epoch: u64, index: Option<usize>) -> String {
    match index {
        None => format!("{epoch}_osdisk"),
        Some(index) => format!("{epoch}_{index}"),
    }
}

/// Only the written form with dashes: other forms of a UUID never come from us.
fn hyphenated(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

/// Digits only: `str::parse` alone would accept a sign.
fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10";

    #[test]
    fn built_names_are_taken_apart_again() {
        let vm = Uuid::try_parse(UUID).unwrap();
        assert_eq!(
            CatalogName::parse(&label(UUID, "ledger_01.a")),
            Some(CatalogName::Label { vm })
        );
        assert_eq!(
            CatalogName::parse(&document(UUID, 1_735_689_600)),
            Some(CatalogName::Document {
                vm,
                epoch: 1_735_689_600
            })
        );
        assert_eq!(
            CatalogName::parse(&digests(UUID, 7)),
            Some(CatalogName::Digests { vm, epoch: 7 })
        );
        for index in [None, Some(0), Some(17)] {
            let file = image_file(1_735_689_600, index);
            assert_eq!(
                CatalogName::parse(&image(UUID, &file)),
                Some(CatalogName::Image {
                    vm,
                    epoch: 1_735_689_600,
                    file
                })
            );
        }
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let vm = Uuid::try_parse(UUID).unwrap();
        for name in [
            "..",
            "../../etc/passwd",
            "/etc/cron.d/x",
            "a/@azure-vm/b",
            "/@azure-vm/x.name",
            "a\nb\r\0c\u{85}",
            "r\u{e9}seau-\u{65e5}\u{672c}",
            &"x".repeat(100_000),
            &"\u{1f600}".repeat(1000),
        ] {
            let label = label(UUID, name);
            let file = label.strip_prefix(ROOT).unwrap();
            assert!(
                !file.contains('/') && !file.contains(char::is_control),
                "{label:?}"
            );
            assert!(file.len() <= 255, "{} bytes", file.len());
            assert_eq!(CatalogName::parse(&label), Some(CatalogName::Label { vm }));
        }
    }

    #[test]
    fn what_stands_before_the_root_is_ignored() {
        let path = format!("/tmp/bacula-restores{}", document(UUID, 7));
        assert!(matches!(
            CatalogName::parse(&path),
            Some(CatalogName::Document { epoch: 7, .. })
        ));
    }

    #[test]
    fn other_names_are_not_ours() {
        for path in [
            "/etc/passwd",
            "/@azure-vm/",
            "/@azure-vm/nonsense_x.name",
            "/@azure-vm/3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10_.name",
            "/@azure-vm/3d1f0c527a444e0e9a538b1d6c2f9e10/1_conf",
            "/@azure-vm/3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10/conf",
            "/@azure-vm/3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10/+1_conf",
            "/@azure-vm/3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10/1_",
            "/@azure-vm/3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10/1_osdisk/2",
        ] {
            assert_eq!(CatalogName::parse(path), None, "{path}");
        }
    }
}
