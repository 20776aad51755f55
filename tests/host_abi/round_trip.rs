//! Backup and restore through the C table.

use std::time::{Duration, Instant};

use crate::cloud::{Cloud, DISKS, OS_DISK_SIZE};
use crate::host::{Job, RC_ERROR, RC_MORE, RC_OK};
use crate::jobs::{
    CF_EXTRACT, CF_SKIP, FT_PLUGIN_CONFIG, STREAM_DATA, Stored, backup, begin_backup,
    begin_backup_at, end_backup, end_restore, restore_files, restore_options, start, store_files,
};
use crate::numbers::{ALL, FATAL, Numbers, V14};

use mock_server::{Action, Disk, Fault, Link, MIB, Scenario, Vm, When};

fn kinds(stored: &[Stored]) -> Vec<(&str, bool)> {
    stored
        .iter()
        .map(|file| {
            let name = &file.saved.name;
            let kind = name.rsplit(['_', '.']).next().unwrap_or(name);
            (kind, file.saved.offsets)
        })
        .collect()
}

#[test]
fn a_vm_comes_back_on_every_interface() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01");
        let before = DISKS.map(|disk| cloud.emulator.disk_digest(disk).expect("digest"));
        let stored = backup(numbers, &cloud, &command);
        cloud.assert_clean(3);

        let (options, files) = stored.split_first().expect("files");
        assert_eq!(options.saved.kind, FT_PLUGIN_CONFIG);
        let (name, template, index) = options.saved.object.clone().expect("an object");
        assert_eq!((name.as_str(), index), ("RestoreOptions", 1));
        assert!(template.contains("new_hostname=@STR@"));
        assert_eq!(
            kinds(files),
            [
                ("name", false),
                ("conf", false),
                ("osdisk", true),
                ("0", true),
                ("1", true),
                ("digests", false)
            ]
        );
        assert!(
            files
                .iter()
                .all(|file| file.saved.mode == 0o100_600 && file.saved.portable)
        );
        assert_eq!(files[2].saved.size, OS_DISK_SIZE);
        for image in &files[2..5] {
            let (offset, data) = image.blocks.last().expect("the last block always comes");
            assert_eq!(offset + data.len() as u64, image.saved.size);
        }

        let mut job = start(numbers, &cloud, 2);
        let text = "# Name\nnew_hostname=\"web-02\"\n";
        restore_options(&mut job, &command, text, text.len());
        let answers = restore_files(&mut job, &command, files);
        assert_eq!(&answers[1..], [CF_EXTRACT; 5], "{:?}", job.messages());
        end_restore(&mut job, 'T');
        let messages = job.messages();
        assert!(messages.iter().all(|(class, _)| *class > 1), "{messages:?}");
        job.end();
        cloud.assert_clean(3);

        let state = cloud.emulator.state();
        let vm = state
            .virtual_machines
            .iter()
            .find(|vm| vm.name == "web-02")
            .expect("the new VM");
        let mut disks = vec![&vm.os_disk.id];
        disks.extend(vm.data_disks.values().map(|disk| &disk.id));
        let after: Vec<_> = disks
            .into_iter()
            .map(|disk| cloud.emulator.disk_digest(disk).expect("digest"))
            .collect();
        assert_eq!(after, before);
        assert_eq!(vm.data_disks.keys().collect::<Vec<_>>(), [&0, &5]);
    }
}

/// The Director sends all Plugin lines of a file set first, then asks for the files of one after the other.
#[test]
fn every_plugin_line_of_a_job_is_saved() {
    let cloud = Cloud::start();
    // The second line saves the same machine again: its snapshots must not be in the way of the first one's.
    let lines = [cloud.command("vm=web-01"), cloud.command("include=web.*")];
    let mut job = start(V14, &cloud, 1);
    job.event_number(12, 'F' as usize);
    for line in &lines {
        job.event_text(20, line);
    }
    job.event(19, std::ptr::null_mut());
    job.event(3, std::ptr::null_mut());
    let mut stored = Vec::new();
    for line in &lines {
        assert_eq!(job.event_text(9, line), RC_OK, "{:?}", job.messages());
        stored.push(store_files(&mut job, 65528));
    }
    end_backup(&mut job, 'T');
    let messages = job.messages();
    assert!(messages.iter().all(|(class, _)| *class > 1), "{messages:?}");
    job.end();
    let [first, second] = [&stored[0], &stored[1]].map(|files| {
        let blocks = files[3..6].iter().map(|file| file.blocks.clone());
        (files.len(), blocks.collect::<Vec<_>>())
    });
    assert_eq!(first.0, 7);
    assert_eq!(first, second);
    cloud.assert_clean(6);
}

/// The snapshot of a machine that failed stays, and nothing says that its image is on no volume.
#[test]
fn a_run_that_cannot_tell_what_it_did_not_save_fails_its_job() {
    let vm = |name: &str| Vm::new("rg1", name, Disk::new(&format!("{name}-os"), 20 * MIB));
    let cloud = Cloud::with(Scenario::new().vm(vm("a")).vm(vm("b")));
    let refuse = |operation, status, code| Fault::new(operation, Action::error(status, code));
    for fault in [
        refuse("Snapshots_GrantAccess", 403, "AuthorizationFailed").first(1),
        refuse("Snapshots_Update", 403, "AuthorizationFailed"),
        refuse("Snapshots_Delete", 409, "ScopeLocked").first(2),
    ] {
        cloud.emulator.fault(fault);
    }
    let mut job = start(V14, &cloud, 1);
    assert_eq!(begin_backup(&mut job, &cloud.command("include=.*")), RC_OK);
    assert_eq!(store_files(&mut job, 65528).len(), 5);
    assert_eq!(job.messages_of(FATAL), Vec::<String>::new());
    end_backup(&mut job, 'T');
    let fatal = job.messages_of(FATAL);
    assert!(
        fatal.len() == 1 && fatal[0].contains("as not saved"),
        "{:?}",
        job.messages()
    );
    job.end();
    cloud.assert_clean(1);
}

/// All reads of [`Cloud::start`] but those of the three footers, which come first. Disks are read ahead, so a fault that is
/// set later may be too late.
const WITHOUT_FOOTERS: When = When::From(4);

/// A backup up to the first block of the OS disk.
fn reading(cloud: &Cloud, numbers: &'static Numbers) -> Job {
    let mut job = start(numbers, cloud, 1);
    assert_eq!(begin_backup(&mut job, &cloud.command("vm=web-01")), RC_OK);
    for _ in 0..3 {
        job.start_backup_file().expect("options, name, conf");
        job.open();
        while job.read(&mut [0; 65536]).status > 0 {}
        job.close();
        assert_eq!(job.end_backup_file(), RC_MORE);
    }
    job
}

#[test]
fn a_cancel_ends_a_read_and_leaves_nothing() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        // Behind the footers of the three disks no answer comes within the time of a test.
        cloud.emulator.fault(Fault {
            operation: "Blob_Get".to_owned(),
            path_contains: None,
            when: When::From(4),
            action: Action::Delay {
                milliseconds: 3_600_000,
            },
        });
        let mut job = reading(&cloud, numbers);
        assert!(job.start_backup_file().expect("the OS disk").offsets);
        job.open();
        let canceller = job.canceller();
        let cancel = std::thread::spawn(move || canceller.cancel());
        let answer = job.read(&mut [0; 65536]);
        assert_eq!((answer.status, answer.errno), (-1, libc::ECANCELED));
        assert_eq!(cancel.join().expect("cancelled"), RC_OK);
        // The daemon may take its time until it says that the job has ended.
        cloud.assert_given_back(0);
        job.close();
        assert_eq!(job.end_backup_file(), RC_ERROR);
        cloud.emulator.clear_faults();
        end_backup(&mut job, 'A');
        assert_eq!(job.messages_of(FATAL), Vec::<String>::new());
        job.end();
        cloud.assert_clean(0);
    }
}

/// What was prepared when the cancel came goes at once, though nothing of it failed.
#[test]
fn a_cancel_while_bases_are_closed_leaves_nothing_for_the_end_of_the_job() {
    let cloud = Cloud::start();
    let command = cloud.command("vm=web-01");
    backup(V14, &cloud, &command);
    // No answer comes to those of the job, and none to the first one after the cancel.
    let never = Action::delay(Duration::from_secs(3600));
    let close = "Snapshots_RevokeAccess";
    let emulator = &cloud.emulator;
    emulator.fault(Fault::new(close, never).first(4));
    emulator.reset_counters();
    let mut job = start(V14, &cloud, 2);
    job.set_text(V14.previous, "test.2026-01-01_00.00.00_01");
    assert_eq!(begin_backup_at(&mut job, 'I', &command), RC_OK);
    job.start_backup_file().expect("options");
    let canceller = job.canceller();
    let took = std::thread::scope(|scope| {
        let cancelling = scope.spawn(move || {
            while emulator.counters().requests(close) < 3 {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(canceller.cancel(), RC_OK);
            Instant::now()
        });
        job.end_backup_file();
        cancelling.join().expect("cancelled").elapsed()
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
    cloud.assert_given_back(3);
    assert_eq!(job.start_backup_file(), Err(RC_ERROR));
    end_backup(&mut job, 'A');
    assert_eq!(job.messages_of(FATAL), Vec::<String>::new());
    job.end();
    cloud.assert_clean(3);
}

/// All files have been handed over, and the run is recorded: the Director calls it cancelled all the same.
#[test]
fn a_cancel_at_the_end_of_the_job_leaves_nothing_of_it() {
    let never = Action::delay(Duration::from_secs(3600));
    // Giving access back; and, where two Fulls are there already, deleting the snapshots of the older one.
    for (fulls, operation) in [(1, "Snapshots_RevokeAccess"), (2, "Snapshots_Delete")] {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01");
        let hand_over = |id| {
            let mut job = start(V14, &cloud, id);
            assert_eq!(begin_backup(&mut job, &command), RC_OK);
            store_files(&mut job, V14.buffer());
            job
        };
        for id in 1..=fulls {
            let mut job = hand_over(id);
            end_backup(&mut job, 'T');
            job.end();
        }
        let emulator = &cloud.emulator;
        emulator.reset_counters();
        emulator.fault(Fault::new(operation, never.clone()).first(3));
        let mut job = hand_over(9);
        let tracker = cloud.working_dir().join("azure-vm/tracker.json");
        let is_recorded = || {
            let text = std::fs::read_to_string(&tracker).expect("a tracker");
            text.contains("test.2026-01-01_00.00.00_09")
        };
        let canceller = job.canceller();
        let took = std::thread::scope(|scope| {
            let cancelling = scope.spawn(move || {
                while emulator.counters().requests(operation) < 3 || !is_recorded() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert_eq!(canceller.cancel(), RC_OK);
                Instant::now()
            });
            end_backup(&mut job, 'R');
            cancelling.join().expect("cancelled").elapsed()
        });
        assert!(took < Duration::from_secs(5), "{took:?}");
        cloud.assert_given_back(3);
        assert!(!is_recorded());
        let said: Vec<_> = job.messages().into_iter().map(|(_, text)| text).collect();
        let told = said.iter().filter(|text| text.contains("cancelled"));
        assert_eq!(told.count(), 1, "{said:?}");
        job.end();
        cloud.assert_clean(3);
    }
}

#[test]
fn an_image_that_stops_half_way_ends_the_job() {
    let cloud = Cloud::start();
    cloud.emulator.fault(Fault {
        operation: "Blob_Get".to_owned(),
        path_contains: None,
        when: WITHOUT_FOOTERS,
        action: Action::Status {
            status: 404,
            code: Some("BlobNotFound".to_owned()),
            body: None,
            retry_after: None,
        },
    });
    let mut job = reading(&cloud, V14);
    job.start_backup_file().expect("the OS disk");
    job.open();
    let mut buffer = vec![0; 65536];
    while job.read(&mut buffer).status > 0 {}
    let fatal = job.messages_of(FATAL);
    assert_eq!(fatal.len(), 1, "{fatal:?}");
    assert!(fatal[0].contains(DISKS[0]), "{fatal:?}");
    // A fatal message does not stop the daemon's loop.
    let again = job.read(&mut buffer);
    assert_eq!((again.status, again.errno), (-1, libc::EIO));
    job.close();
    assert_eq!(job.end_backup_file(), RC_ERROR);
    end_backup(&mut job, 'f');
    assert_eq!(job.messages_of(FATAL), Vec::<String>::new(), "said once");
    job.end();
    cloud.emulator.clear_faults();
    cloud.assert_clean(0);
}

#[test]
fn an_image_that_the_host_skips_ends_the_job() {
    let cloud = Cloud::start();
    let mut job = reading(&cloud, V14);
    job.start_backup_file().expect("the OS disk");
    assert_eq!(job.end_backup_file(), RC_ERROR);
    assert_eq!(job.messages_of(FATAL).len(), 1);
    end_backup(&mut job, 'f');
    job.end();
    cloud.assert_clean(0);
}

#[test]
fn a_job_that_vanishes_leaves_nothing() {
    let cloud = Cloud::start();
    let mut job = reading(&cloud, V14);
    job.start_backup_file().expect("the OS disk");
    job.open();
    assert!(job.read(&mut [0; 512]).status > 0);
    job.end();
    cloud.assert_clean(0);
}

#[test]
fn an_estimate_lists_and_creates_nothing() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let mut job = start(numbers, &cloud, 0);
        job.event_number(12, 'F' as usize);
        let command = format!("{} listing=/", cloud.command("vm=web-01"));
        assert_eq!(job.event_text(11, &command), RC_OK, "{:?}", job.messages());
        let mut names = Vec::new();
        loop {
            let file = job.start_backup_file().expect("a file");
            names.push((file.name, file.size));
            if job.end_backup_file() != RC_MORE {
                break;
            }
        }
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(
            names[1].0.ends_with("_conf") && names[1].1 > 1000,
            "{names:?}"
        );
        assert_eq!(names[2].1, OS_DISK_SIZE);
        job.end();
        let counters = cloud.emulator.counters();
        for operation in counters.operations.keys() {
            let reads = ["_Get", "_List", "_ListAll", "Token"];
            assert!(
                reads.iter().any(|end| operation.ends_with(end)),
                "{operation}"
            );
        }
        assert!(!cloud.working_dir().join("azure-vm").exists());
        cloud.assert_clean(0);
    }
}

#[test]
fn a_restore_that_is_not_good_makes_nothing() {
    for status in ['E', 'f', 'A'] {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01 new_hostname=web-02");
        let stored = backup(V14, &cloud, &command);
        let mut job = start(V14, &cloud, 2);
        restore_files(&mut job, &command, &stored);
        end_restore(&mut job, status);
        let said = job.messages();
        assert!(
            said.iter()
                .any(|(_, text)| text.contains("no virtual machine is created")),
            "{said:?}"
        );
        job.end();
        let state = cloud.emulator.state();
        assert_eq!((state.virtual_machines.len(), state.disks.len()), (1, 3));
        cloud.assert_clean(3);
    }
}

#[test]
fn images_without_their_offsets_are_refused_by_9_6() {
    let cloud = Cloud::start();
    let command = cloud.command("vm=web-01 new_hostname=web-02");
    let mut stored = backup(V14, &cloud, &command);
    let image = stored
        .iter_mut()
        .find(|file| file.saved.offsets)
        .expect("an image");
    image.saved.offsets = false;
    assert_eq!(image.stream(), STREAM_DATA);
    let mut job = start(V14, &cloud, 2);
    let answers = restore_files(&mut job, &command, &stored);
    assert_eq!(&answers[2..], [CF_SKIP; 4]);
    let fatal = job.messages_of(FATAL);
    assert_eq!(fatal.len(), 1, "{fatal:?}");
    end_restore(&mut job, 'f');
    job.end();
    cloud.assert_clean(3);
}

#[test]
fn options_that_were_lost_end_the_restore() {
    let cloud = Cloud::start();
    let command = cloud.command("vm=web-01");
    let stored = backup(V14, &cloud, &command);
    let mut job = start(V14, &cloud, 2);
    restore_options(&mut job, &command, "", 64);
    assert_eq!(job.messages_of(FATAL).len(), 1);
    let answers = restore_files(&mut job, &command, &stored);
    assert_eq!(answers, [CF_SKIP; 6]);
    end_restore(&mut job, 'f');
    job.end();
    cloud.assert_clean(3);
}

#[test]
fn a_wrong_secret_is_one_clear_line() {
    let cloud = Cloud::start();
    let mut job = start(V14, &cloud, 1);
    let command = cloud.command("vm=web-01 application_secret=nonsense");
    assert_eq!(begin_backup(&mut job, &command), RC_ERROR);
    let messages = job.messages();
    let fatal: Vec<_> = messages
        .iter()
        .filter(|(class, _)| *class == FATAL)
        .collect();
    assert_eq!(fatal.len(), 1, "{messages:?}");
    assert!(messages.iter().all(|(_, text)| !text.contains("nonsense")));
    assert!(store_files(&mut job, 65528).is_empty());
    end_backup(&mut job, 'f');
    job.end();
    cloud.assert_clean(0);
}

#[test]
fn where_is_ignored_with_a_note() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01 new_hostname=web-02");
        let mut stored = backup(numbers, &cloud, &command);
        for file in &mut stored {
            file.saved.name.insert_str(0, "/tmp/bacula-restores");
        }
        let mut job = start(numbers, &cloud, 2);
        job.set_text(numbers.where_, "/tmp/bacula-restores");
        restore_files(&mut job, &command, &stored);
        end_restore(&mut job, 'T');
        let notes = job.messages();
        let about = notes.iter().filter(|(_, text)| text.contains("where="));
        assert_eq!(about.count(), 1, "{notes:?}");
        job.end();
        assert_eq!(cloud.emulator.state().virtual_machines.len(), 2);
        cloud.assert_clean(3);
    }
}

#[test]
fn a_slow_network_changes_nothing() {
    let cloud = Cloud::start();
    cloud.emulator.set_link(Link {
        latency: std::time::Duration::from_millis(20),
        bandwidth: None,
    });
    let stored = backup(V14, &cloud, &cloud.command("vm=web-01"));
    assert_eq!(stored.len(), 7);
    cloud.assert_clean(3);
}
