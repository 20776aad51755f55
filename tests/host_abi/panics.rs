//! A panic in any function of the table: its job fails with one message, and the job beside it goes on.

use std::fs;

use crate::cloud::Cloud;
use crate::host::{Job, Packet, RC_ERROR, RC_OK};
use crate::jobs::{
    CF_EXTRACT, FT_REG, Stored, backup, begin_backup, end_backup, end_restore, restore_options,
    start, store_files,
};
use crate::numbers::{ALL, FATAL, Numbers, funcs};

/// A step of a job, in which a panic is met.
#[derive(Clone, Copy, Debug)]
enum Meets {
    Backup,
    Restore,
    Check,
    Query,
    End,
}

/// Functions with calls of theirs that pass before.
const POINTS: [(&str, u32, Meets); 12] = [
    // The first plugin command, the backup command, the end of the backup.
    ("handlePluginEvent", 0, Meets::Backup),
    ("handlePluginEvent", 4, Meets::Backup),
    ("handlePluginEvent", 5, Meets::Backup),
    ("startBackupFile", 3, Meets::Backup),
    ("endBackupFile", 2, Meets::Backup),
    ("pluginIO", 20, Meets::Backup),
    // The command of the first file.
    ("handlePluginEvent", 3, Meets::Restore),
    ("createFile", 2, Meets::Restore),
    ("pluginIO", 12, Meets::Restore),
    ("checkFile", 0, Meets::Check),
    ("queryParameter", 0, Meets::Query),
    ("freePlugin", 0, Meets::End),
];

fn arm(cloud: &Cloud, function: &str, job: i32, passes: u32) {
    let file = cloud.working_dir().join("azure-vm/panic");
    fs::write(file, format!("{function} {job} {passes}")).expect("write");
}

fn is_armed(cloud: &Cloud) -> bool {
    cloud.working_dir().join("azure-vm/panic").exists()
}

#[test]
fn a_panic_fails_its_job_and_no_other() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01");
        let stored = backup(numbers, &cloud, &command);
        // In the middle of its files all the while.
        let mut other = start(numbers, &cloud, 2);
        assert_eq!(begin_backup(&mut other, &command), RC_OK);
        other.start_backup_file().expect("the options");
        other.end_backup_file();
        let state = || {
            let state = cloud.emulator.state();
            (state.snapshots.len(), state.grants.len(), state.disks.len())
        };
        let before = state();
        for (number, (function, passes, meets)) in (10..).zip(POINTS) {
            if matches!(meets, Meets::Query) && numbers.version == 14 {
                continue;
            }
            let mut job = start(numbers, &cloud, number);
            arm(&cloud, function, number, passes);
            meet(numbers, &mut job, &command, meets, &stored);
            let messages = job.messages_of(FATAL);
            if matches!(meets, Meets::End) {
                assert!(messages.is_empty(), "{messages:?}");
                assert_eq!(job.end_with(), RC_ERROR);
            } else {
                assert_eq!(messages.len(), 1, "{function}: {messages:?}");
                let text = format!("internal error, please report it: asked for in {function}");
                assert!(messages[0].contains(&text), "{messages:?}");
                assert_eq!(job.start_backup_file(), Err(RC_ERROR), "later calls fail");
                assert_eq!(job.messages(), [], "said once");
                job.end();
            }
            assert!(!is_armed(&cloud), "{function} after {passes} was not met");
            assert_eq!(state(), before, "{function} after {passes}");
        }
        let files = store_files(&mut other, numbers.buffer());
        end_backup(&mut other, 'T');
        let messages = other.messages();
        assert!(messages.iter().all(|(class, _)| *class > 1), "{messages:?}");
        other.end();
        let blocks = |files: &[Stored]| -> Vec<_> {
            let images = files.iter().filter(|file| file.saved.offsets);
            images.map(|file| file.blocks.clone()).collect()
        };
        assert!(blocks(&files) == blocks(&stored), "other bytes");
        cloud.assert_idle();
    }
}

/// Bacula's calls, as if nothing had been answered.
fn meet(numbers: &Numbers, job: &mut Job, command: &str, meets: Meets, stored: &[Stored]) {
    match meets {
        Meets::Backup => {
            begin_backup(job, command);
            store_files(job, numbers.buffer());
            end_backup(job, 'f');
        }
        Meets::Restore => {
            let text = "new_hostname=\"web-02\"\n";
            restore_options(job, command, text, text.len());
            job.event(5, std::ptr::null_mut());
            for file in stored.iter().filter(|file| file.saved.kind == FT_REG) {
                assert_eq!(job.event_text(10, command), RC_OK, "never refused");
                let created = job.create_file(&file.saved.name, file.saved.size, file.stream());
                if created != (RC_OK, CF_EXTRACT) {
                    continue;
                }
                job.open();
                for (offset, data) in &file.blocks {
                    job.seek(i64::try_from(*offset).expect("small"));
                    job.write(data);
                }
                job.close();
            }
            end_restore(job, 'f');
        }
        Meets::Check => assert_eq!(job.check_file("/@azure-vm/u/1735689600_osdisk"), RC_OK),
        Meets::Query => {
            let mut packet = Packet::new(48, 40, 0);
            packet.set(8, c"VM".as_ptr());
            packet.set(16, c"azure-vm:".as_ptr());
            assert_eq!(job.call_with(funcs::QUERY, packet.as_ptr()), RC_ERROR);
        }
        Meets::End => {}
    }
}
