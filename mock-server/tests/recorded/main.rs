//! The emulator against recorded traffic of Azure (`tests/recordings`): it gets the recorded requests, and its answers must
//! have the shape of the recorded ones: status, headers, members, types, spelling. What differs is in one table, `known.rs`, with
//! the reason; the README tells the same in words.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod az_cli;
#[path = "../common/mod.rs"]
mod common;
mod known;
mod machines;
mod play;
mod recording;
mod scenes;
mod shape;

use play::Played;
use std::collections::BTreeSet;

/// All in one test, since an entry of the table must occur somewhere.
#[tokio::test]
async fn answers_have_the_recorded_shape_but_for_what_is_known() {
    let mut played = Played::default();
    for scene in [
        scenes::lists().await,
        scenes::instance_views().await,
        scenes::zone_and_identities().await,
        scenes::upload().await,
        scenes::ready_to_upload().await,
        scenes::disk_access().await,
        scenes::snapshot_access().await,
        scenes::results_at_once().await,
        scenes::snapshots().await,
        scenes::background_copy().await,
        scenes::interface_and_machine().await,
        scenes::interface_and_address().await,
        scenes::refusals().await,
        scenes::failed_operations().await,
    ] {
        played = played.and(scene);
    }
    let found = played.differences;
    let patterns = || known::DIFFERENCES.iter().flat_map(|known| known.patterns);
    let unknown: Vec<_> = found
        .iter()
        .filter(|difference| !patterns().any(|pattern| known::fits(pattern, difference)))
        .collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    let gone: Vec<_> = patterns()
        .filter(|pattern| {
            !found
                .iter()
                .any(|difference| known::fits(pattern, difference))
        })
        .collect();
    assert!(gone.is_empty(), "these no longer occur: {gone:#?}");

    let compared = positions(played.compared);
    let instead = positions(played.instead);
    let not_asked: BTreeSet<_> = known::NOT_ASKED
        .iter()
        .flat_map(|known| known.numbers.iter().map(|&at| (known.recording, at)))
        .map(|(recording, at)| (recording.to_owned(), at))
        .collect();
    assert!(compared.is_disjoint(&not_asked), "compared and not asked");
    let told: BTreeSet<_> = compared.union(&not_asked).cloned().collect();
    let all: BTreeSet<_> = recording::all().into_iter().collect();
    assert_eq!(told, all, "compared or not asked, and all there are");
    let counts = format!(
        "Of {} recorded answers {} are compared, {} of them with the answer to another request",
        all.len(),
        compared.len(),
        instead.len()
    );
    let rest = format!("the other {} are listed there", not_asked.len());
    let readme = include_str!("../../README.md").replace('\n', " ");
    for told in [counts, rest] {
        assert!(readme.contains(&told), "the README does not say: {told}");
    }
}

fn positions(of: Vec<(&str, usize)>) -> BTreeSet<(String, usize)> {
    of.into_iter()
        .map(|(recording, at)| (recording.to_owned(), at))
        .collect()
}
