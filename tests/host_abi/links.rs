//! What others put into the working directory in the place of our folder: nothing is written, read or removed through it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use mock_server::{Change, Disk, MIB};

use crate::cloud::{Cloud, DISKS};
use crate::host::{RC_ERROR, RC_OK};
use crate::jobs::{
    CF_SKIP, FT_REG, backup, begin_backup, end_backup, end_restore, restore_files, start,
    store_files,
};
use crate::numbers::{ALL, FATAL};

const LINK: &str = "it is a symbolic link";

/// What a dead restore leaves, as far as anybody can see: `id` names what it has made.
fn leave_debris(folder: &Path, id: &str) {
    let dead = folder.join("restore/7");
    fs::create_dir_all(&dead).expect("make");
    fs::set_permissions(&dead, fs::Permissions::from_mode(0o700)).expect("mode");
    for (file, text) in [("in-use", &*format!("{id:?}\n")), ("victim", "bytes")] {
        fs::write(dead.join(file), text).expect("write");
        fs::set_permissions(dead.join(file), fs::Permissions::from_mode(0o600)).expect("mode");
    }
}

/// All that is in the folder, with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        found.push((path.display().to_string(), Vec::new()));
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.last_mut().expect("pushed").1 = fs::read(&path).expect("read");
        }
    }
    found.sort();
    found
}

#[test]
fn a_link_in_the_place_of_our_folder_fails_every_job_and_leads_nowhere() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01");
        let stored = backup(numbers, &cloud, &command);
        let ours = cloud.working_dir().join("azure-vm");
        let elsewhere = tempfile::tempdir().expect("folder");
        fs::rename(&ours, cloud.working_dir().join("aside")).expect("rename");
        symlink(elsewhere.path(), &ours).expect("link");
        // A disk that is there, and that nobody uses.
        let spare = Disk::new("spare", 24 * MIB);
        let change = Change::CreateDisk(Box::new(spare));
        cloud.emulator.change(&change).expect("made");
        let disks = cloud.emulator.state().disks;
        let spare = disks.iter().find(|disk| disk.name == "spare");
        leave_debris(elsewhere.path(), &spare.expect("a disk").id);
        // A tracker that could be read; it would be complained about.
        fs::write(elsewhere.path().join("tracker.json"), "{ half").expect("write");
        let before = contents(elsewhere.path());
        let untouched = |by: &str| {
            let now = contents(elsewhere.path());
            assert!(now == before, "changed by the {by}: {now:?}");
            let count = cloud.emulator.state().disks.len();
            assert_eq!(count, disks.len(), "disks after the {by}");
        };

        let debug = cloud.command("vm=web-01 debug=1");
        let mut job = start(numbers, &cloud, 2);
        assert_eq!(begin_backup(&mut job, &debug), RC_ERROR);
        end_backup(&mut job, 'f');
        let told = job.messages_of(FATAL);
        assert!(told.len() == 1 && told[0].contains(LINK), "{told:?}");
        job.end();
        untouched("backup");

        let mut job = start(numbers, &cloud, 3);
        job.event(5, std::ptr::null_mut());
        for file in stored.iter().filter(|file| file.saved.kind == FT_REG) {
            assert_eq!(job.event_text(10, &debug), RC_OK);
            let created = job.create_file(&file.saved.name, file.saved.size, file.stream());
            assert_eq!(created, (RC_OK, CF_SKIP));
        }
        end_restore(&mut job, 'f');
        let told = job.messages_of(FATAL);
        assert!(told.len() == 1 && told[0].contains(LINK), "{told:?}");
        job.end();
        untouched("restore");

        // An estimate goes by the tags.
        let mut job = start(numbers, &cloud, 4);
        job.event_number(12, 'I' as usize);
        assert_eq!(job.event_text(11, &command), RC_OK, "{:?}", job.messages());
        let told = job.messages();
        assert!(told.iter().any(|(_, text)| text.contains(LINK)), "{told:?}");
        assert!(
            !told.iter().any(|(_, text)| text.contains("tracker")),
            "{told:?}"
        );
        job.end();
        untouched("estimate");

        if numbers.version != 14 {
            let mut job = start(numbers, &cloud, 0);
            let answer = job.query("SNAPSHOT", &command);
            assert!(answer.contains(LINK), "{answer}");
            job.end();
        }
        untouched("question");
        // Local images are looked for in our own.
        fs::remove_file(&ours).expect("the link");
        cloud.assert_clean(DISKS.len());
    }
}

/// Once a job has begun, it stays where it has begun.
#[test]
fn what_takes_the_place_of_our_folder_in_the_midst_of_a_job_leads_nowhere() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let ours = cloud.working_dir().join("azure-vm");
        let aside = cloud.working_dir().join("aside");
        let elsewhere = tempfile::tempdir().expect("folder");
        let exchange = || {
            fs::rename(&ours, &aside).expect("rename");
            symlink(elsewhere.path(), &ours).expect("link");
        };
        let bring_back = || {
            fs::remove_file(&ours).expect("the link");
            fs::rename(&aside, &ours).expect("rename");
        };
        leave_debris(elsewhere.path(), "none");
        let before = contents(elsewhere.path());
        let command = cloud.command("vm=web-01 new_hostname=web-02 debug=1");

        let mut job = start(numbers, &cloud, 1);
        assert_eq!(begin_backup(&mut job, &command), RC_OK);
        exchange();
        let stored = store_files(&mut job, numbers.buffer());
        end_backup(&mut job, 'T');
        let told = job.messages();
        assert!(told.iter().all(|(class, _)| *class > 1), "{told:?}");
        job.end();
        bring_back();
        let tracker = fs::read_to_string(ours.join("tracker.json")).expect("a tracker");
        assert!(tracker.contains("test.2026-01-01_00.00.00_01"), "{tracker}");

        // The images come after the link.
        let image = stored.iter().position(|file| file.saved.offsets);
        let (documents, images) = stored.split_at(image.expect("an image"));
        let mut job = start(numbers, &cloud, 2);
        restore_files(&mut job, &command, documents);
        exchange();
        restore_files(&mut job, &command, images);
        assert_eq!(
            fs::read_dir(aside.join("restore/2")).expect("list").count(),
            4
        );
        end_restore(&mut job, 'T');
        let told = job.messages();
        assert!(told.iter().all(|(class, _)| *class > 1), "{told:?}");
        job.end();
        bring_back();
        assert!(contents(elsewhere.path()) == before, "it was changed");
        let machines = cloud.emulator.state().virtual_machines;
        assert!(machines.iter().any(|vm| vm.name == "web-02"));
        cloud.assert_clean(DISKS.len());
    }
}
