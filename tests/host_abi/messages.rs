//! What a person is told: in the job log, and with `debug` in the debug file, too.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mock_server::DEFAULT_CLIENT_SECRET;

use crate::cloud::Cloud;
use crate::host::{RC_ERROR, RC_OK};
use crate::jobs::{begin_backup, end_backup, start, store_files};
use crate::numbers::ALL;

/// Also what is said in the very call that opens the file: warnings of the Plugin line, what the core
/// says at its beginning, why it gives up.
#[test]
fn the_debug_file_has_what_the_job_log_has() {
    for numbers in &ALL {
        let cloud = Cloud::start();
        let file = cloud
            .working_dir()
            .join(format!("azure-vm/azure-vm_1_{}.log", std::process::id()));
        let secret = format!("application_secret={DEFAULT_CLIENT_SECRET}");

        let mut job = start(numbers, &cloud, 1);
        let quiet = cloud.command(&format!("{secret} vm=web-01"));
        assert_eq!(begin_backup(&mut job, &quiet), RC_OK);
        store_files(&mut job, 65528);
        end_backup(&mut job, 'T');
        assert!(job.messages().len() > 2);
        job.end();
        assert!(!file.exists(), "debug=0");

        let mut job = start(numbers, &cloud, 1);
        let good = cloud.command(&format!("{secret} debug=1 vm=WEB-01"));
        assert_eq!(begin_backup(&mut job, &good), RC_OK);
        store_files(&mut job, 65528);
        end_backup(&mut job, 'T');
        let mut messages = job.messages();
        job.end();
        let mut job = start(numbers, &cloud, 1);
        let bad = cloud.command(&format!("{secret} debug=1 vm=none"));
        assert_eq!(begin_backup(&mut job, &bad), RC_ERROR);
        end_backup(&mut job, 'f');
        messages.extend(job.messages());
        job.end();
        // A configuration that is wrong is no reason not to open it.
        let mut job = start(numbers, &cloud, 1);
        let wrong = cloud.command(&format!("{secret} debug=2 colour=blue"));
        assert_eq!(begin_backup(&mut job, &wrong), RC_ERROR);
        end_backup(&mut job, 'f');
        messages.extend(job.messages());
        job.end();

        assert_eq!(
            fs::metadata(&file).expect("a file").permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(&file).expect("read");
        for part in [
            "stands in the Plugin line",
            "when case is ignored",
            "no virtual machine is named none",
            "unknown parameter colour",
        ] {
            assert!(
                messages.iter().any(|(_, message)| message.contains(part)),
                "{messages:?}"
            );
        }
        for (_, message) in &messages {
            let message = message.strip_prefix("azure-vm: ").expect("the prefix");
            assert!(text.contains(message), "{message}\n{text}");
        }
        assert!(!text.contains(DEFAULT_CLIENT_SECRET));
    }
}
