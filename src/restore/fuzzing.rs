//! Fuzz target of what comes back from a volume.

#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]

use serde_json::Value;

use super::plan::Plan;
use super::saved::{SavedContent, SavedRun, parse, when};
use crate::json;

const VM: &str = "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10";
/// Longest reason that is given, in bytes.
const MOST_SAID: usize = 2000;

/// The configuration document.
pub fn conf_document(data: &[u8]) {
    // It came under the name that it says itself, or else it goes no further.
    let named: Value = serde_json::from_slice(data).unwrap_or_default();
    let vm = json::text(&named, "/vmUuid").unwrap_or(VM);
    let epoch = json::integer(&named, "/epoch").unwrap_or(7);
    let document = match parse(data, vm, epoch) {
        Ok(document) => document,
        Err(reason) => return explained(&reason),
    };
    assert!(!when(document.epoch).is_empty());
    let written = document.to_bytes().expect("a document can be written");
    assert_eq!(parse(&written, vm, epoch).as_ref(), Ok(&document));
    assert!(parse(data, "", epoch).is_err() || vm.is_empty());
    match SavedRun::new(&document, data) {
        Ok(run) => {
            assert_eq!(run.images.len(), document.images.len());
            for image in &run.images {
                assert!(image.size > 0 && image.size.is_multiple_of(512) && image.size <= 64 << 40);
                assert!(run.image_of(&image.disk_unique_id).is_some());
                if let SavedContent::Delta {
                    base_epoch,
                    cleared,
                    ..
                } = &image.content
                {
                    assert!(*base_epoch < epoch);
                    assert!(cleared.iter().all(|range| range.end() <= image.size));
                    assert!(cleared.is_sorted_by(|one, next| one.end() <= next.start()));
                }
            }
        }
        Err(reason) => explained(&reason),
    }
    let subscription = "5b5b5b5b-0000-4000-8000-00000000000b";
    for name in [None, Some("copy")] {
        match Plan::new(&document, name, subscription, "0a1b2c3d") {
            Ok(plan) => {
                // The name is part of addresses.
                assert!(!plan.vm.name().is_empty() && plan.vm.name().len() <= 64);
                let body = plan.vm_body();
                let disks = json::elements(&body, "/properties/storageProfile/dataDisks");
                assert_eq!(disks.len() + 1, document.images.len());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn explained(reason: &str) {
    assert!(!reason.is_empty() && reason.len() < MOST_SAID, "{reason}");
}
