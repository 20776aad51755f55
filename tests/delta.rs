//! Incremental and Differential of single disks against the emulator: what is sent, when a disk is saved in full
//! instead, and what it costs. Oracle: the blocks on the older bytes are the bytes of the disk.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use azure_vm_fd::azure::{Access, ErrorKind, ResourceId};
use azure_vm_fd::backup::{Backup, Error, Level, Outcome, Run};
use azure_vm_fd::document::{Document, ImageContent, ImageRecord};
use azure_vm_fd::notice::Severity;
use mock_server::{
    Action, Change, DEFAULT_SUBSCRIPTION, Disk, Fault, GIB, KIB, MIB, Snapshot, TIB, Vm,
};
use support::{GROUP, LIST_PAGE, SavedFile, World, ledger, run, scenario, small};

const HOUR: Duration = Duration::from_secs(3600);

fn incremental(number: u32, previous: u32) -> Run {
    Run {
        level: Level::Incremental,
        previous: Some(run(previous).job),
        ..run(number)
    }
}

/// The document and the images of a run of one VM.
fn images(files: &[SavedFile]) -> Vec<(ImageRecord, &SavedFile)> {
    let document: Document = serde_json::from_slice(&files[1].blocks[0].1).unwrap();
    document.images.into_iter().zip(&files[2..]).collect()
}

/// Makes an image out of an older one, as a restore does: clear, then write.
fn apply(older: &[u8], record: &ImageRecord, file: &SavedFile) -> Vec<u8> {
    let index = |at: u64| usize::try_from(at).unwrap();
    let mut image = match record.content {
        ImageContent::Full => Vec::new(),
        ImageContent::Delta { .. } => older.to_vec(),
    };
    image.resize(index(record.size_bytes), 0);
    for range in record.content.cleared() {
        image[index(range.start())..index(range.end())].fill(0);
    }
    for (offset, bytes) in &file.blocks {
        image[index(*offset)..][..bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// The bytes of all disks after one more run.
struct Oracle<'a> {
    world: &'a World,
    disks: Vec<String>,
    images: BTreeMap<String, Vec<u8>>,
}

impl<'a> Oracle<'a> {
    fn new(world: &'a World, disks: &[&str]) -> Self {
        Self {
            world,
            disks: disks.iter().map(|&disk| disk.to_owned()).collect(),
            images: BTreeMap::new(),
        }
    }

    /// Applies the images of a run, which must give what the disks hold now; the names of the disks that came in full.
    fn check(&mut self, files: &[SavedFile]) -> Vec<String> {
        let mut full = Vec::new();
        let images = images(files);
        assert_eq!(images.len(), self.disks.len());
        for ((record, file), disk) in images.iter().zip(&self.disks) {
            let older = self.images.remove(disk).unwrap_or_default();
            let image = apply(&older, record, file);
            let size = self.world.emulator.disk_size(disk).unwrap();
            let expected = self.world.emulator.disk_read(disk, 0, size).unwrap();
            assert!(image == expected, "{disk}: {:?}", record.content);
            assert!(file.sent() <= record.data_bytes, "{disk}");
            self.images.insert(disk.clone(), image);
            if record.content == ImageContent::Full {
                full.push(disk.clone());
            }
        }
        full
    }
}

const LEDGER: [&str; 3] = ["ledger-os", "ledger-data-a", "ledger-data-b"];

fn snapshot_of(world: &World, number: u32, disk: &str) -> String {
    let state = world.state();
    let source = &state.disk(disk).unwrap().id;
    let job = run(number).job;
    let found = state.snapshots.iter().find(|snapshot| {
        snapshot.source.eq_ignore_ascii_case(source)
            && snapshot.tags.get("bacula-azure-vm:job") == Some(&job)
    });
    found.unwrap().name.clone()
}

fn snapshot_id(name: &str) -> ResourceId {
    ResourceId::new(
        DEFAULT_SUBSCRIPTION,
        GROUP,
        "Microsoft.Compute/snapshots",
        name,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_every_kind_are_saved_and_nothing_else() {
    let world = World::new(scenario().vm(ledger())).await;
    let guest = &world.emulator;
    let mut oracle = Oracle::new(&world, &LEDGER);
    assert_eq!(oracle.check(&world.back_up(run(1)).await).len(), 3);

    // Interleaved writes and discards, written zeros, and the end of the disk discarded; the second disk stays.
    for number in 0..40 {
        let at = number * 24 * KIB;
        guest.guest_discard("ledger-os", at, 8 * KIB).unwrap();
        guest
            .guest_pattern("ledger-os", 90 + number, at + 8 * KIB, 8 * KIB)
            .unwrap();
    }
    guest
        .guest_write("ledger-os", 3 * MIB + 100, &[0; 70_000])
        .unwrap();
    guest
        .guest_discard("ledger-data-b", 22 * MIB, 2 * MIB)
        .unwrap();
    world.take_notices();
    let files = world.back_up(incremental(2, 1)).await;
    assert_eq!(oracle.check(&files), [""; 0]);
    let saved = images(&files);
    assert_eq!(saved[0].0.content.cleared().len(), 40);
    assert!(saved[0].1.sent() <= 40 * 8 * KIB + 71 * KIB);
    assert_eq!(saved[1].0.content.cleared().len(), 0);
    assert_eq!(saved[1].1.sent(), 512);
    assert_eq!(saved[2].1.sent(), 512);
    let document: Document = serde_json::from_slice(&files[1].blocks[0].1).unwrap();
    assert_eq!(document.level, "Incremental");
    let ImageContent::Delta { base_job, .. } = &saved[0].0.content else {
        panic!("{:?}", saved[0].0.content);
    };
    assert_eq!(*base_job, run(1).job);
    let notices = world.take_notices();
    assert_eq!(notices.get(&Severity::Error), None, "{notices:?}");
    let account = notices[&Severity::Info]
        .iter()
        .find(|line| line.contains("ledger-data-b"));
    let account = account.unwrap();
    assert!(
        account.contains(&format!(
            "changes since {}: written 0 B, cleared 2.0 MiB, read 512 B, sent 512 B",
            run(1).job
        )),
        "{account}"
    );

    // A disk that grew, with data in its new part and behind its former end.
    let grow = |size| Change::GrowDisk {
        disk: "ledger-data-a".into(),
        size: mock_server::ByteSize(size),
    };
    guest.change(&grow(56 * MIB)).unwrap();
    guest
        .guest_pattern("ledger-data-a", 7, 40 * MIB - 4096, 8192)
        .unwrap();
    guest
        .guest_pattern("ledger-data-a", 8, 50 * MIB, 4096)
        .unwrap();
    let files = world.back_up(incremental(3, 2)).await;
    assert_eq!(oracle.check(&files), [""; 0]);
    assert_eq!(images(&files)[1].1.sent(), 8192 + 4096 + 512);

    // Grown without a write: the end of the disk is sent.
    guest.change(&grow(60 * MIB)).unwrap();
    assert_eq!(
        oracle.check(&world.back_up(incremental(4, 3)).await),
        [""; 0]
    );

    // A Differential starts from the Full again, and takes all of it.
    let mut since_full = Oracle::new(&world, &LEDGER);
    since_full.check(&world.back_up(run(5)).await);
    guest.guest_pattern("ledger-os", 77, 9 * MIB, MIB).unwrap();
    let full = since_full.images.clone();
    since_full.check(&world.back_up(incremental(6, 5)).await);
    guest.guest_discard("ledger-os", 9 * MIB, 4096).unwrap();
    since_full.images = full;
    let mut differential = incremental(7, 6);
    differential.level = Level::Differential;
    differential.previous = Some(run(5).job);
    assert_eq!(
        since_full.check(&world.back_up(differential).await),
        [""; 0]
    );
    world.assert_settled();
}

/// The one disk that an Incremental saved in full, and the notice that says why.
async fn fallback_of(world: &World, oracle: &mut Oracle<'_>, number: u32) -> (String, String) {
    world.take_notices();
    world
        .emulator
        .guest_pattern("ledger-os", number.into(), MIB, 4096)
        .unwrap();
    let files = world.back_up(incremental(number, number - 1)).await;
    let full = oracle.check(&files);
    let notices: Vec<_> = std::iter::from_fn(|| world.notices.pop()).collect();
    let errors = notices.iter().enumerate();
    let errors: Vec<_> = errors
        .filter(|(_, notice)| notice.severity == Severity::Error)
        .collect();
    assert_eq!((full.len(), errors.len()), (1, 1), "{full:?} {notices:?}");
    // When its turn comes: the account of the same disk follows.
    let (at, error) = errors[0];
    for notice in [error, &notices[at + 1]] {
        let label = format!("disk {} (", full[0]);
        assert!(notice.text.starts_with(&label), "{notices:?}");
    }
    (full[0].clone(), error.text.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_changes_azure_does_not_tell_is_saved_in_full_and_only_that_one() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut oracle = Oracle::new(&world, &LEDGER);
    oracle.check(&world.back_up(run(1)).await);
    let list = |body: &str| Action::Status {
        status: 200,
        code: None,
        body: Some(format!("<PageList>{body}<NextMarker/></PageList>")),
        retry_after: None,
    };
    let range =
        |from: u64, to: u64| format!("<PageRange><Start>{from}</Start><End>{to}</End></PageRange>");
    let clear = "<ClearRange><Start>0</Start><End>511</End></ClearRange>";
    let mut number = 1;
    for (action, reason) in [
        (
            Action::error(409, "PreviousSnapshotNotFound"),
            "PreviousSnapshotNotFound",
        ),
        (
            Action::error(409, "PreviousSnapshotOperationNotSupported"),
            "PreviousSnapshotOperationNotSupported",
        ),
        (
            Action::error(400, "PreviousSnapshotCannotBeNewer"),
            "PreviousSnapshotCannotBeNewer",
        ),
        (Action::error(409, "BlobOverwritten"), "BlobOverwritten"),
        (
            Action::error(409, "BlobGenerationMismatch"),
            "BlobGenerationMismatch",
        ),
        (
            Action::error(409, "FeatureVersionMismatch"),
            "FeatureVersionMismatch",
        ),
        (Action::error(404, "BlobNotFound"), "BlobNotFound"),
        (Action::error(400, "InvalidInput"), "InvalidInput"),
        (list(&range(TIB, TIB + 511)), "beyond the end"),
        (list(&(range(512, 1023) + &range(0, 511))), "begins before"),
        (list(&(range(0, 511) + &range(0, 511))), "begins before"),
        (list(&(range(0, 511) + clear)), "begins before"),
        (list(&range(0, 100)), "not aligned"),
        (list("<PageRange><Start>0</Start></PageRange>"), "no End"),
    ] {
        number += 1;
        world.emulator.clear_faults();
        world
            .emulator
            .fault(Fault::new("Blob_GetPageRangesDiff", action).nth(1));
        let (_, notice) = fallback_of(&world, &mut oracle, number).await;
        assert!(notice.contains(reason), "{reason}: {notice}");
        for part in [
            "full image",
            "next incremental builds on this image",
            "nothing has to be left out",
        ] {
            assert!(notice.contains(part), "{notice}");
        }
        assert!(!notice.contains("sig="), "{notice}");
    }
    // The image that was saved in full is a base like any other.
    world.emulator.clear_faults();
    world
        .emulator
        .guest_pattern("ledger-os", 99, 2 * MIB, 4096)
        .unwrap();
    let files = world.back_up(incremental(number + 1, number)).await;
    assert_eq!(oracle.check(&files), [""; 0]);
    world.assert_settled();
}

/// It lists all that is allocated, and says nothing of what was discarded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_heed_the_base_is_noticed() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut oracle = Oracle::new(&world, &LEDGER);
    oracle.check(&world.back_up(run(1)).await);
    for (disk, from, len) in [
        ("ledger-os", 4 * MIB, MIB),
        ("ledger-data-a", 0, 8 * MIB),
        ("ledger-data-b", 22 * MIB, 512 * 1024),
    ] {
        world.emulator.guest_discard(disk, from, len).unwrap();
    }
    let name = "x-ms-previous-snapshot-url".into();
    world.emulator.fault(Fault::new(
        "Blob_GetPageRangesDiff",
        Action::Ignore { name },
    ));
    let files = world.back_up(incremental(2, 1)).await;
    assert_eq!(oracle.check(&files).len(), 3, "all in full");
    let errors = &world.take_notices()[&Severity::Error];
    assert_eq!(errors.len(), 3, "{errors:?}");
    for error in errors {
        assert!(error.contains("does not compute differences"), "{error}");
    }
    // As soon as it does, the full images are bases like any other.
    world.emulator.clear_faults();
    let files = world.back_up(incremental(3, 2)).await;
    assert_eq!(oracle.check(&files), [""; 0]);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_cannot_be_had_costs_one_full_image() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut oracle = Oracle::new(&world, &LEDGER);
    oracle.check(&world.back_up(run(1)).await);

    let base = snapshot_of(&world, 1, "ledger-data-a");
    let gone = Change::DeleteSnapshot { snapshot: base };
    world.emulator.change(&gone).unwrap();
    let (disk, notice) = fallback_of(&world, &mut oracle, 2).await;
    assert_eq!(disk, "ledger-data-a");
    assert!(notice.contains("no snapshot of this disk"), "{notice}");

    let base = snapshot_of(&world, 2, "ledger-data-b");
    let refused = Action::error(403, "AuthorizationFailed");
    world
        .emulator
        .fault(Fault::new("Snapshots_GrantAccess", refused).path_contains(&base));
    let (disk, notice) = fallback_of(&world, &mut oracle, 3).await;
    assert_eq!(disk, "ledger-data-b");
    assert!(
        notice.contains("cannot be opened") && notice.contains("AuthorizationFailed"),
        "{notice}"
    );
    world.emulator.clear_faults();

    // Without the list each base is read.
    let base = snapshot_of(&world, 3, "ledger-os");
    let refused = || Action::error(403, "AuthorizationFailed");
    world
        .emulator
        .fault(Fault::new("Snapshots_List", refused()));
    world
        .emulator
        .fault(Fault::new("Snapshots_Get", refused()).path_contains(&base));
    let (disk, notice) = fallback_of(&world, &mut oracle, 4).await;
    assert_eq!(disk, "ledger-os");
    assert!(notice.contains("cannot be read"), "{notice}");
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_breaks_is_asked_for_again() {
    let world = World::new(scenario().vm(ledger())).await;
    let mut oracle = Oracle::new(&world, &LEDGER);
    oracle.check(&world.back_up(run(1)).await);
    for number in 0..60 {
        world
            .emulator
            .guest_pattern("ledger-os", 9, number * MIB, 512)
            .unwrap();
        world
            .emulator
            .guest_discard("ledger-os", number * MIB + 4096, 4096)
            .unwrap();
    }
    let list = |action| Fault::new("Blob_GetPageRangesDiff", action);
    world.emulator.fault(
        list(Action::CutBody {
            after: mock_server::ByteSize(300),
        })
        .nth(2),
    );
    world.emulator.fault(list(Action::Reset).nth(5));
    world.emulator.fault(list(Action::RevokeSas).nth(8));
    world.emulator.fault(list(Action::RevokeBaseSas).nth(11));
    world
        .emulator
        .fault(list(Action::Throttle { retry_after: None }).nth(10));
    let files = world.back_up(incremental(2, 1)).await;
    assert_eq!(oracle.check(&files), [""; 0]);
    assert!(
        world
            .emulator
            .counters()
            .of("Blob_GetPageRangesDiff")
            .requests
            > 10
    );
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_is_busy_is_waited_for() {
    let mut scenario = scenario().vm(small("a"));
    for number in 0..4 {
        scenario = scenario.snapshot(Snapshot {
            name: format!("other-{number}"),
            disk: "a-os".into(),
            resource_group: Some(GROUP.into()),
            ..Snapshot::default()
        });
    }
    let world = World::new(scenario).await;
    let mut oracle = Oracle::new(&world, &["a-os"]);
    oracle.check(&world.back_up(run(1)).await);
    // Four others read: with the new snapshot five are open, and the base would be the sixth.
    let azure = world.azure();
    let mut grants = Vec::new();
    for number in 0..4 {
        let id = snapshot_id(&format!("other-{number}"));
        grants.push(azure.grant(&id, Access::Read, HOUR).await.unwrap());
    }
    world.emulator.guest_pattern("a-os", 3, 0, MIB).unwrap();
    let free = async {
        let refused = || {
            let counters = world.emulator.counters().of("Snapshots_GrantAccess");
            counters.statuses.get(&409).copied().unwrap_or(0)
        };
        while refused() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        grants.pop().unwrap().revoke().await.unwrap();
    };
    let (files, ()) = tokio::join!(world.back_up(incremental(2, 1)), free);
    assert_eq!(oracle.check(&files), [""; 0]);
    let notices = world.take_notices();
    assert!(
        notices[&Severity::Info]
            .iter()
            .any(|line| line.contains("waits up to 5 minutes")),
        "{notices:?}"
    );
    for grant in grants {
        grant.revoke().await.unwrap();
    }
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_full_that_may_be_restored_before_it_a_run_builds_on_nothing() {
    let world = World::new(scenario().vm(small("a"))).await;
    world.back_up(run(1)).await;
    let full = world.begin(run(2)).await.unwrap();
    world.take_notices();
    let files = world.back_up(incremental(3, 1)).await;
    assert_eq!(images(&files)[0].0.content, ImageContent::Full);
    let errors = &world.take_notices()[&Severity::Error];
    assert!(errors[0].contains(&run(2).job), "{errors:?}");

    full.finish(Outcome::Bad).await.unwrap();
    let files = world.back_up(incremental(4, 3)).await;
    assert_ne!(images(&files)[0].0.content, ImageContent::Full);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fallback_the_run_fails_and_leaves_nothing() {
    let world = World::new(scenario().vm(ledger()).vm(small("z"))).await;
    world.back_up(run(1)).await;
    let before = world.state().snapshots.len();
    world.emulator.fault(
        Fault::new(
            "Blob_GetPageRangesDiff",
            Action::error(409, "BlobOverwritten"),
        )
        .nth(2),
    );
    let mut options = world.options();
    options.fallback = false;
    let run = incremental(2, 1);
    let mut backup = Backup::begin(world.azure(), run, options, world.notices.clone())
        .await
        .unwrap();
    let error = backup.next_vm().await.unwrap_err();
    assert!(matches!(error, Error::NoChanges { .. }), "{error}");
    assert!(error.to_string().contains("fallback=no"), "{error}");
    backup.finish(Outcome::Bad).await.unwrap();
    assert_eq!(world.state().snapshots.len(), before);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_grew_over_4_tib_is_not_even_asked_for() {
    let vm = Vm::new(
        GROUP,
        "big",
        Disk::new("big-os", 3 * TIB).pattern(1, MIB, MIB),
    );
    let world = World::new(scenario().vm(vm)).await;
    world.back_up(run(1)).await;
    let grow = Change::GrowDisk {
        disk: "big-os".into(),
        size: mock_server::ByteSize(5 * TIB),
    };
    world.emulator.change(&grow).unwrap();
    world.take_notices();
    world.emulator.reset_counters();
    let files = world.back_up(incremental(2, 1)).await;
    assert_eq!(images(&files)[0].0.content, ImageContent::Full);
    assert_eq!(
        world.emulator.counters().requests("Blob_GetPageRangesDiff"),
        0
    );
    let errors = &world.take_notices()[&Severity::Error];
    assert!(
        errors[0].contains("grew over 4 TiB, from 3.0 TiB to 5.0 TiB"),
        "{errors:?}"
    );

    // Azure would have refused.
    let azure = world.azure();
    let base = snapshot_id(&snapshot_of(&world, 1, "big-os"));
    let target = snapshot_id(&snapshot_of(&world, 2, "big-os"));
    let base = azure.grant(&base, Access::Read, HOUR).await.unwrap();
    let target = azure.grant(&target, Access::Read, HOUR).await.unwrap();
    let asked = target
        .page_blob()
        .page_list_diff(&base.page_blob())
        .collect()
        .await;
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::DiffUnavailable);
    base.revoke().await.unwrap();
    target.revoke().await.unwrap();

    // From here on there is a base again.
    world
        .emulator
        .guest_pattern("big-os", 2, 4 * TIB, 4096)
        .unwrap();
    let files = world.back_up(incremental(3, 2)).await;
    assert_eq!(images(&files)[0].1.sent(), 4096 + 512);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_gib_discarded_cost_less_than_a_kib() {
    let vm = Vm::new(GROUP, "big", Disk::new("big-os", TIB).pattern(1, MIB, MIB));
    let world = World::new(scenario().vm(vm)).await;
    world.back_up(run(1)).await;
    // Nobody wants to read 500 GiB here: the base is taken anew, under its name, when the disk is full.
    let base = snapshot_of(&world, 1, "big-os");
    let tags = world.state().snapshots[0].tags.clone();
    world
        .emulator
        .change(&Change::DeleteSnapshot {
            snapshot: base.clone(),
        })
        .unwrap();
    world
        .emulator
        .guest_pattern("big-os", 2, 100 * GIB, 500 * GIB)
        .unwrap();
    let again = Snapshot {
        name: base,
        disk: "big-os".into(),
        resource_group: Some(GROUP.into()),
        tags,
    };
    world
        .emulator
        .change(&Change::CreateSnapshot(again))
        .unwrap();

    world
        .emulator
        .guest_discard("big-os", 100 * GIB, 500 * GIB)
        .unwrap();
    world.emulator.reset_counters();
    let discarded = world.back_up(incremental(2, 1)).await;
    let read = world.emulator.counters().of("Blob_Get").bytes_out;
    let unchanged = world.back_up(incremental(3, 2)).await;
    let record = &images(&discarded)[0].0;
    let cleared: Vec<_> = record
        .content
        .cleared()
        .iter()
        .map(|r| (r.start(), r.end()))
        .collect();
    assert_eq!(cleared, [(100 * GIB, 600 * GIB)]);
    // Both images are the last sector.
    assert_eq!(discarded[2].sent(), 512);
    assert_eq!(unchanged[2].sent(), 512);
    assert_eq!(images(&unchanged)[0].0.content.cleared(), []);
    assert!(discarded[1].size < unchanged[1].size + 1024);
    // The last sector, and the VHD footer of the snapshot.
    assert_eq!(read, 2 * 512);
    world.assert_settled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_follows_the_changes_and_not_the_size_of_the_disk() {
    const PIECES: u64 = 512;
    const PIECE: u64 = 128 * KIB;
    let mut costs = Vec::new();
    for size in [GIB, 64 * GIB, TIB] {
        let vm = Vm::new(GROUP, "big", Disk::new("big-os", size).pattern(1, MIB, MIB));
        let world = World::new(scenario().vm(vm)).await;
        world.back_up(run(1)).await;
        for piece in 0..PIECES {
            let at = piece * (size / PIECES) + PIECE;
            world
                .emulator
                .guest_pattern("big-os", piece, at, PIECE)
                .unwrap();
        }
        world.emulator.reset_counters();
        let files = world.back_up(incremental(2, 1)).await;
        let changed = PIECES * PIECE;
        assert_eq!(files[2].sent(), changed + 512);
        assert_eq!(images(&files)[0].0.data_bytes, changed + 512);
        let counters = world.emulator.counters();
        let read = counters.of("Blob_Get").bytes_out;
        assert!(read * 100 <= changed * 105, "{read} of {changed}");
        let mut requests: BTreeMap<String, u64> = counters
            .operations
            .into_iter()
            .map(|(name, counters)| (name, counters.requests))
            .collect();
        // The image is opened with one request, its base with none.
        assert_eq!(requests["Blob_Get"], PIECES + 1 + 1);
        assert_eq!(requests.get("Blob_GetProperties"), None);
        // How long lists are cut depends on where the changes lie.
        let answers = PIECES.div_ceil(u64::try_from(LIST_PAGE).unwrap());
        let lists = requests.remove("Blob_GetPageRangesDiff").unwrap();
        assert!(
            lists >= answers && lists <= answers * 3 / 2,
            "{lists} of {answers}"
        );
        costs.push(requests);
        world.assert_settled();
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_jobs_save_changes_of_one_vm_at_the_same_time() {
    let world = World::new(scenario().vm(ledger())).await;
    let other = |run: Run| Run {
        job: run.job.replace("AzureVMs", "Other"),
        previous: run.previous.map(|job| job.replace("AzureVMs", "Other")),
        ..run
    };
    let mut first = Oracle::new(&world, &LEDGER);
    let mut second = Oracle::new(&world, &LEDGER);
    first.check(&world.back_up(run(1)).await);
    world
        .emulator
        .guest_pattern("ledger-os", 5, 3 * MIB, MIB)
        .unwrap();
    second.check(&world.back_up(other(run(1))).await);
    for number in 2..=4 {
        world
            .emulator
            .guest_discard("ledger-os", u64::from(number) * MIB, 64 * KIB)
            .unwrap();
        world
            .emulator
            .guest_pattern("ledger-data-b", number.into(), 0, MIB)
            .unwrap();
        let (one, two) = tokio::join!(
            world.back_up(incremental(number, number - 1)),
            world.back_up(other(incremental(number, number - 1)))
        );
        assert_eq!(first.check(&one), [""; 0]);
        assert_eq!(second.check(&two), [""; 0]);
    }
    assert_eq!(world.take_notices().get(&Severity::Error), None);
    world.assert_settled();
}
