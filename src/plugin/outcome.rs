//! The only table from an error to what the host is told: return code, job message, `errno`.
//!
//! A return code alone may leave the job green (a command that returns an error ends silently), and of I/O the host
//! looks at the packet alone: so every row says all three.

use super::error::Error;
use super::host::{MessageClass, Status};

/// What the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The return code of calls that have nothing else.
    pub(super) status: Status,
    /// How the job message counts; `None` if there is nothing (more) to say.
    pub(super) message: Option<MessageClass>,
    /// For an I/O packet.
    pub(super) errno: i32,
}

impl Outcome {
    /// What an error means. No wildcard: a new kind of error has to be placed.
    ///
    /// Everything that ends here concerns the job as a whole, for the failure of a single VM is a notice of the core;
    /// so it is fatal, which alone keeps the run from becoming the base of later ones.
    pub(super) fn of(error: &Error) -> Self {
        let fatal = |errno| Self {
            status: Status::Error,
            message: Some(MessageClass::Fatal),
            errno,
        };
        match error {
            Error::Settings(_) | Error::Options(_) | Error::Level(_) => fatal(libc::EINVAL),
            Error::Encryption { .. } | Error::DataStream { .. } => fatal(libc::ENOTSUP),
            Error::Azure(_)
            | Error::Backup(_)
            | Error::Restore(_)
            | Error::StateFolder { .. }
            | Error::HostValue(_)
            | Error::Sequence(_)
            | Error::Runtime(_)
            | Error::GivenUp => fatal(libc::EIO),
            Error::Cancelled => Self {
                status: Status::Error,
                message: Some(MessageClass::Info),
                errno: libc::ECANCELED,
            },
            Error::Failed => Self {
                status: Status::Error,
                message: None,
                errno: libc::EIO,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backup, config, restore};

    #[test]
    fn faults_are_fatal_and_cancelling_is_not() {
        let faults = [
            Error::Settings(config::Error::from("bad".to_owned())),
            Error::Backup(backup::Error::Selection("nothing".into())),
            Error::Restore(restore::Error::TwoVms {
                first: "a".into(),
                second: "b".into(),
            }),
            Error::Sequence("read"),
        ];
        for fault in faults {
            let outcome = Outcome::of(&fault);
            assert_eq!(outcome.message, Some(MessageClass::Fatal), "{fault}");
            assert_eq!(outcome.status, Status::Error, "{fault}");
            assert_ne!(outcome.errno, 0, "{fault}");
        }
        let cancelled = Outcome::of(&Error::from(backup::Error::Cancelled));
        assert_eq!(cancelled.message, Some(MessageClass::Info));
        assert_eq!(cancelled.errno, libc::ECANCELED);
        assert_eq!(Outcome::of(&Error::Failed).message, None);
    }
}
