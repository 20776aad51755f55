//! One Bacula job.
