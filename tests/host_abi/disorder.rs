//! Calls in orders and with packets that must not happen: errors, messages, and no harm.

use std::ffi::c_void;
use std::ptr;

use crate::host::{Job, Packet, RC_ERROR, RC_OK, RC_SEEN};
use crate::library::Plugin;
use crate::numbers::{ALL, FATAL, IO_END, IO_SIZE, IO_STATUS, Numbers, RESTORE_SIZE, funcs};

fn job(numbers: &'static Numbers) -> Job {
    Job::start(Plugin::of(numbers), 1)
}

#[test]
fn a_job_of_others_is_left_alone() {
    for numbers in &ALL {
        let mut job = job(numbers);
        assert_eq!(job.event_text(1, "JobId=1 Job=other"), RC_OK);
        assert_eq!(job.event_number(12, 'F' as usize), RC_OK);
        for event in [3, 19, 4, 2, 5, 6, 7, 8, 15, 26, 27, 99] {
            assert_eq!(job.event(event, ptr::null_mut()), RC_OK, "event {event}");
        }
        assert_eq!(job.messages(), []);
        job.end();
    }
}

#[test]
fn images_of_earlier_runs_are_seen() {
    for numbers in &ALL {
        let mut job = job(numbers);
        assert_eq!(job.check_file("/@azure-vm/u/1735689600_osdisk"), RC_SEEN);
        assert_eq!(job.check_file("/etc/passwd"), RC_OK);
    }
}

#[test]
fn reading_and_writing_nothing_fails() {
    for numbers in &ALL {
        let mut buffer = [0_u8; 16];
        let steps: [fn(&mut Job, &mut [u8]) -> crate::host::IoAnswer; 6] = [
            |job, _| job.open(),
            |job, buffer| job.read(buffer),
            |job, buffer| job.write(buffer),
            |job, _| job.seek(4096),
            |job, _| job.close(),
            |job, _| job.nonsense(),
        ];
        for step in steps {
            let mut job = job(numbers);
            let answer = step(&mut job, &mut buffer);
            assert_eq!((answer.code, answer.status), (RC_ERROR, -1));
            assert_ne!(answer.errno, 0);
            assert_eq!(job.messages_of(FATAL).len(), 1);
        }
        let mut job = job(numbers);
        assert!(
            job.seek(4096).offset < 0,
            "the host looks at the offset alone"
        );
        assert_eq!(job.seek(-1).status, -1);
    }
}

#[test]
fn files_without_a_command_fail() {
    for numbers in &ALL {
        let mut job = job(numbers);
        assert_eq!(job.end_backup_file(), RC_ERROR);
        assert_eq!(job.messages_of(FATAL).len(), 1);
        assert_eq!(job.start_backup_file(), Err(RC_ERROR));
        assert_eq!(job.messages(), [], "said once");

        let mut job = self::job(numbers);
        let (code, status) = job.create_file("/@azure-vm/u/1_osdisk", 512, 6);
        assert_eq!((code, status), (RC_OK, 1), "skipped");
        assert_eq!(job.messages_of(FATAL).len(), 1);
        assert_eq!(job.set_attributes(), RC_OK);
        assert_eq!(job.end_restore_file(), RC_OK);
    }
}

#[test]
fn wrong_packets_are_not_touched() {
    for numbers in &ALL {
        let size = numbers.save.size;
        let wrong = [
            (funcs::START_BACKUP_FILE, size + 8, numbers.save.end),
            (funcs::CREATE_FILE, RESTORE_SIZE - 8, 212),
            (funcs::IO, IO_SIZE + 8, IO_END),
        ];
        for (func, size, end) in wrong {
            let mut job = job(numbers);
            let mut packet = Packet::new(size, end, 0x5a);
            assert_eq!(job.call_with(func, packet.as_ptr()), RC_ERROR);
            assert_eq!(packet.get::<i32>(IO_STATUS), 0x5a5a_5a5a, "untouched");
            let messages = job.messages_of(FATAL);
            assert_eq!(messages.len(), 1);
            assert!(messages[0].contains(&numbers.version.to_string()));
        }
        let mut packet = Packet::new(size, numbers.save.end, 0);
        packet.set(numbers.save.end, 0_i32);
        let mut job = job(numbers);
        assert_eq!(
            job.call_with(funcs::START_BACKUP_FILE, packet.as_ptr()),
            RC_ERROR
        );
    }
}

#[test]
fn null_pointers_are_survived() {
    const NULL: *mut c_void = ptr::null_mut();
    for numbers in &ALL {
        let with_argument = [
            funcs::START_BACKUP_FILE,
            funcs::IO,
            funcs::CREATE_FILE,
            funcs::EVENT,
        ];
        for func in with_argument {
            assert_eq!(job(numbers).call_with(func, NULL), RC_ERROR, "{func}");
        }
        let mut job = job(numbers);
        assert_eq!(job.call_with(funcs::CHECK_FILE, NULL), RC_OK);
        assert_eq!(job.call_with(funcs::START_RESTORE_FILE, NULL), RC_OK);
        assert_eq!(job.call_with(funcs::SET_ATTRIBUTES, NULL), RC_OK);
        // Events whose text is missing. A restore command must not fail: the host would write the files itself.
        for event in [9, 11, 20] {
            assert_eq!(job.event(event, NULL), RC_ERROR, "event {event}");
        }
        assert_eq!(job.event(10, NULL), RC_OK);
        assert_eq!(job.event(18, NULL), RC_OK, "after the last object");
    }
}

#[test]
fn a_cancel_ends_what_would_follow() {
    for numbers in &ALL {
        let mut job = job(numbers);
        let canceller = job.canceller();
        std::thread::spawn(move || assert_eq!(canceller.cancel(), RC_OK))
            .join()
            .expect("cancelled");
        assert_eq!(job.messages(), [], "a cancel says nothing by itself");
        assert_eq!(job.start_backup_file(), Err(RC_ERROR));
        let answer = job.read(&mut [0; 8]);
        assert_eq!((answer.status, answer.errno), (-1, libc::ECANCELED));
        assert_eq!(job.messages_of(FATAL), Vec::<String>::new());
    }
}
