//! What is dropped is wiped: no block of memory that is freed holds a secret of the configuration.
//!
//! Copies of libraries are theirs: of the ini parser, if the secrets stand in the configuration file and not in files of their
//! own, of OAuth, HTTP and TLS (SECURITY.md).

#![allow(unsafe_code, reason = "an allocator is unsafe by nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use azure_vm_fd::azure::Azure;
use azure_vm_fd::config::{Settings, Transfer};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

const SECRET: &[u8] = b"wiped~when-it-is.dropped_and~not-before";
/// Base64 of a key of 64 bytes.
const KEY: &[u8] =
    b"d2lwZWQgd2hlbiBpdCBpcyBkcm9wcGVkLCBhbmQgbm90IGJlZm9yZSwgd2lwZWQgd2hlbiBpdCBpcyBkcm9wcA==";

/// Freed blocks that held one of them.
static FOUND: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator; looks at what is freed.
struct Watching;

#[global_allocator]
static WATCHING: Watching = Watching;

// SAFETY: all is left to `System`; what is freed is read before.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that each byte may be read later.
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: a whole block that is still allocated, and was initialised when it was.
        let bytes = unsafe { slice::from_raw_parts(block, layout.size()) };
        if [SECRET, KEY].iter().any(|secret| holds(bytes, secret)) {
            FOUND.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(block, layout) }
    }
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|part| part == secret)
}

/// Freed blocks with a secret in them while `work` is done.
fn found_in(work: impl FnOnce()) -> usize {
    let before = FOUND.load(Ordering::Relaxed);
    work();
    FOUND.load(Ordering::Relaxed) - before
}

/// One test: what others free at the same time would count.
#[test]
fn no_freed_block_holds_a_secret() {
    let text = |secret: &[u8]| String::from_utf8(secret.to_vec()).expect("text");
    assert_eq!(found_in(|| drop(text(SECRET))), 1, "the watch sees nothing");

    let folder = tempfile::tempdir().expect("a folder");
    let connection = Zeroizing::new(
        [
            b"DefaultEndpointsProtocol=https;AccountName=ledgerstage;AccountKey=".as_slice(),
            KEY,
        ]
        .concat(),
    );
    let files = [
        ("secret", SECRET),
        ("key", &*connection),
        (
            "azure-vm.conf",
            b"[azure]\ntenant_id = t\napplication_id = a\nsubscription_id = s\n",
        ),
    ]
    .map(|(name, content)| {
        let file = folder.path().join(name);
        fs::write(&file, content).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        file
    });
    let [secret, key, config] = files;
    let command = format!(
        "azure-vm: transfer=blob application_secret_file={} connection_key_file={}",
        secret.display(),
        key.display()
    );
    let read = found_in(|| {
        let settings = Settings::from_command(&command, &config).expect("good settings");
        assert!(matches!(settings.transfer, Transfer::Blob(_)));
        assert!(settings.azure.application_secret.expose().as_bytes() == SECRET);
        let azure = Azure::new(settings.azure.clone(), CancellationToken::new());
        drop(azure.expect("a client"));
    });
    assert_eq!(read, 0, "freed with a secret in them");
}
