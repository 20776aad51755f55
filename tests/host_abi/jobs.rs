//! Whole jobs in Bacula's order.

use std::ffi::CString;
use std::ops::ControlFlow;

use crate::cloud::Cloud;
use crate::host::{Job, Packet, RC_MORE, RC_OK, Saved};
use crate::library::Plugin;
use crate::numbers::Numbers;

pub(crate) const FT_REG: i32 = 3;
pub(crate) const FT_PLUGIN_CONFIG: i32 = 27;
const FT_PLUGIN_CONFIG_FILLED: i32 = 28;

pub(crate) const CF_SKIP: i32 = 1;
pub(crate) const CF_EXTRACT: i32 = 3;

/// Data streams of interface 14.
pub(crate) const STREAM_DATA: i32 = 2;
pub(crate) const STREAM_SPARSE: i32 = 6;

/// A file on a volume.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) saved: Saved,
    /// Offset and bytes, in the order in which they came.
    pub(crate) blocks: Vec<(u64, Vec<u8>)>,
}

impl Stored {
    pub(crate) fn stream(&self) -> i32 {
        if self.saved.offsets {
            STREAM_SPARSE
        } else {
            STREAM_DATA
        }
    }
}

/// A job whose host knows what every daemon knows.
pub(crate) fn start(numbers: &'static Numbers, cloud: &Cloud, job_id: i32) -> Job {
    start_as(
        numbers,
        cloud,
        job_id,
        &format!("test.2026-01-01_00.00.00_{job_id:02}"),
    )
}

/// The same under this unique name.
pub(crate) fn start_as(numbers: &'static Numbers, cloud: &Cloud, job_id: i32, name: &str) -> Job {
    let mut job = Job::start(Plugin::of(numbers), job_id);
    let working_dir = cloud.working_dir();
    std::fs::create_dir_all(&working_dir).expect("working directory");
    job.set_text(2, "test-fd");
    job.set_text(6, name);
    job.set_text(13, working_dir.to_str().expect("a plain name"));
    assert_eq!(
        job.event_text(1, &format!("JobId={job_id} Job={name}")),
        RC_OK
    );
    job
}

/// A Full up to the first backup command, whose return code it returns.
pub(crate) fn begin_backup(job: &mut Job, command: &str) -> i32 {
    begin_backup_at(job, 'F', command)
}

/// The same at this level.
pub(crate) fn begin_backup_at(job: &mut Job, level: char, command: &str) -> i32 {
    if level != 'F' {
        // The time of the run before.
        job.event_number(13, 1_767_571_200);
    }
    job.event_number(12, level as usize);
    job.event_text(20, command);
    job.event(19, std::ptr::null_mut());
    job.event(3, std::ptr::null_mut());
    job.event_text(9, command)
}

/// What the daemon does between a backup command and the end of its files. Stops where the daemon stops.
pub(crate) fn store_files(job: &mut Job, buffer: usize) -> Vec<Stored> {
    store_files_while(job, buffer, |_, _| ControlFlow::Continue(()))
}

/// The same; `between` is called with the number of blocks of images so far, once for each number, and may end the
/// reading, as the daemon does when it cannot send.
pub(crate) fn store_files_while(
    job: &mut Job,
    buffer: usize,
    mut between: impl FnMut(&mut Job, usize) -> ControlFlow<()>,
) -> Vec<Stored> {
    let mut stored = Vec::new();
    let mut count = 0;
    let mut flow = ControlFlow::Continue(());
    let mut buffer = vec![0; buffer];
    while let Ok(saved) = job.start_backup_file() {
        let mut blocks = Vec::new();
        if saved.kind == FT_REG {
            assert_eq!(job.open().status, 0);
            loop {
                buffer.fill(0xee);
                let answer = job.read(&mut buffer);
                let Ok(len @ 1..) = usize::try_from(answer.status) else {
                    break;
                };
                assert_eq!(answer.errno, 0);
                let offset = u64::try_from(answer.offset).expect("an offset");
                blocks.push((offset, buffer[..len].to_vec()));
                if saved.offsets {
                    count += 1;
                    flow = between(job, count);
                }
                if flow.is_break() {
                    break;
                }
            }
            job.close();
        }
        stored.push(Stored { saved, blocks });
        if job.end_backup_file() != RC_MORE || flow.is_break() {
            break;
        }
    }
    stored
}

/// The end of a backup; `status` as the daemon sees it then.
pub(crate) fn end_backup(job: &mut Job, status: char) {
    job.records.status.set(status);
    job.event(4, std::ptr::null_mut());
    if status == 'T' {
        job.event(2, std::ptr::null_mut());
    }
}

/// A good backup.
pub(crate) fn backup(numbers: &'static Numbers, cloud: &Cloud, command: &str) -> Vec<Stored> {
    let mut job = start(numbers, cloud, 1);
    assert_eq!(
        begin_backup(&mut job, command),
        RC_OK,
        "{:?}",
        job.messages()
    );
    let stored = store_files(&mut job, numbers.buffer());
    end_backup(&mut job, 'T');
    let messages = job.messages();
    assert!(messages.iter().all(|(class, _)| *class > 1), "{messages:?}");
    job.end();
    stored
}

/// `RestoreObject` with options that a user has entered; `content` is what arrived of `len` bytes.
pub(crate) fn restore_options(job: &mut Job, command: &str, content: &str, len: usize) {
    let [name, command, content] =
        ["RestoreOptions", command, content].map(|text| CString::new(text).expect("no NUL"));
    let mut packet = Packet::new(64, 60, 0);
    packet.set(8, name.as_ptr());
    packet.set(16, content.as_ptr());
    packet.set(24, command.as_ptr());
    packet.set(32, FT_PLUGIN_CONFIG_FILLED);
    packet.set(36, i32::try_from(len).expect("small"));
    packet.set(40, i32::try_from(len).expect("small"));
    packet.set(44, 1_i32);
    job.event(18, packet.as_ptr());
    job.event(18, std::ptr::null_mut());
}

/// Gives files back, as far as the plugin wants them; the `create_status` of each.
pub(crate) fn restore_files(job: &mut Job, command: &str, files: &[Stored]) -> Vec<i32> {
    job.event(5, std::ptr::null_mut());
    let mut answers = Vec::new();
    for file in files.iter().filter(|file| file.saved.kind == FT_REG) {
        assert_eq!(job.event_text(10, command), RC_OK);
        assert_eq!(job.start_restore_file(command), RC_OK);
        let (code, status) = job.create_file(&file.saved.name, file.saved.size, file.stream());
        assert_eq!(code, RC_OK);
        answers.push(status);
        if status == CF_EXTRACT {
            assert_eq!(job.open().status, 0);
            let mut position = 0;
            for (offset, data) in &file.blocks {
                if *offset != position {
                    let offset = i64::try_from(*offset).expect("small");
                    assert_eq!(job.seek(offset).offset, offset);
                }
                let len = i32::try_from(data.len()).expect("small");
                if job.write(data).status != len {
                    break;
                }
                position = offset + data.len() as u64;
            }
            job.set_attributes();
            job.close();
        }
        job.end_restore_file();
    }
    answers
}

/// The end of a restore; `status` as the daemon sees it then.
pub(crate) fn end_restore(job: &mut Job, status: char) {
    job.records.status.set(status);
    job.event(6, std::ptr::null_mut());
    if status == 'T' {
        job.event(2, std::ptr::null_mut());
    }
}
