//! A byte that changed on the volume.

use mock_server::MIB;

use crate::cloud::{Cloud, OS_DISK_SIZE};
use crate::jobs::{backup, end_restore, restore_files, start};
use crate::numbers::{ALL, FATAL};

#[test]
fn a_byte_that_changed_on_the_volume_is_named_and_azure_is_left_alone() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let command = cloud.command("vm=web-01 new_hostname=web-02");
        let mut stored = backup(numbers, &cloud, &command);
        let image = stored
            .iter_mut()
            .find(|file| file.saved.offsets && file.saved.size == OS_DISK_SIZE)
            .expect("the image of the OS disk");
        let name = image
            .saved
            .name
            .rsplit('/')
            .next()
            .expect("a name")
            .to_owned();
        let (_, bytes) = image
            .blocks
            .iter_mut()
            .find(|(offset, _)| *offset > 40 * MIB)
            .expect("a block of the second pattern");
        bytes[1000] ^= 1;

        let mut job = start(numbers, &cloud, 2);
        restore_files(&mut job, &command, &stored);
        assert_eq!(job.messages_of(FATAL).len(), 0, "{:?}", job.messages());
        end_restore(&mut job, 'T');
        let fatal = job.messages_of(FATAL);
        assert_eq!(fatal.len(), 1, "{:?}", job.messages());
        let range = format!("{}..{}", 32 * MIB, 48 * MIB);
        for part in [
            "web-01",
            "OS disk",
            &name,
            "test.2026-01-01_00.00.00_01",
            &range,
        ] {
            assert!(fatal[0].contains(part), "{part}: {}", fatal[0]);
        }
        job.end();
        let state = cloud.emulator.state();
        assert_eq!((state.virtual_machines.len(), state.disks.len()), (1, 3));
        let counters = cloud.emulator.counters();
        assert_eq!(counters.requests("Disks_CreateOrUpdate"), 0);
        cloud.assert_clean(3);
    }
}
