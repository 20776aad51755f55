//! Fuzz targets of what this host keeps.

#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]

use super::tracker::State;
use super::{Level, select};
use crate::azure::ResourceId;
use crate::catalog::{self, CatalogName};

/// The tracker file.
pub fn tracker_file(data: &[u8]) {
    let mut state = match State::parse(data) {
        Ok(state) => state,
        Err(reason) => {
            let reason = reason.to_string();
            assert!(reason.starts_with("it ") && reason.len() < 200, "{reason}");
            return;
        }
    };
    let written = serde_json::to_vec_pretty(&state).expect("a state can be written");
    assert_eq!(State::parse(&written).ok().as_ref(), Some(&state));
    // What a run does with it.
    for chain in state.chains().to_vec() {
        for run in &chain.runs {
            for level in [Level::Full, Level::Incremental, Level::Differential] {
                let full = chain.full_of(level, Some(&run.job));
                assert!(level != Level::Full || full.is_none());
                let rival = chain.rival(level, &run.job);
                let named = chain.run(&run.job).map_or(0, |named| named.started);
                assert!(rival.is_none_or(|rival| rival.started > named));
            }
            for vm in &run.vms {
                for snapshot in &vm.snapshots {
                    for level in [Level::Incremental, Level::Differential] {
                        let base = chain.base(level, &run.job, &vm.uuid, &snapshot.disk);
                        if let Ok(base) = base {
                            assert!(chain.holds(&base.snapshot), "a base that is not recorded");
                        }
                    }
                }
            }
        }
        let mut left = chain.clone();
        let present = chain.runs.last().map_or("", |run| &run.job);
        let surplus: Vec<ResourceId> = left.surplus(present).into_iter().flatten().collect();
        assert!(surplus.iter().all(|snapshot| chain.holds(snapshot)));
        left.settle(present, &surplus);
        assert!(!surplus.iter().any(|snapshot| left.holds(snapshot)));
    }
    let vm = "3d1f0c52-7a44-4e0e-9a53-8b1d6c2f9e10";
    let first = state.reserve_epoch(vm, 1_735_689_600);
    assert!(state.reserve_epoch(vm, 0) > first);
}

/// An element of a list of virtual machines; its name goes into messages, expressions and the catalog.
pub(crate) fn listed_vm(vm: &serde_json::Value) {
    let listed = select::Listed::new(vm);
    let name = listed.name();
    assert!(!name.is_empty() && name.chars().count() <= select::LONGEST_NAME);
    assert!(!name.contains(char::is_control));
    if let Ok(candidate) = listed.candidate() {
        let label = catalog::label(&candidate.uuid, name);
        match CatalogName::parse(&label) {
            Some(CatalogName::Label { vm }) => {
                assert_eq!(vm.hyphenated().to_string(), candidate.uuid);
            }
            other => panic!("{label:?} is {other:?}"),
        }
    }
}
