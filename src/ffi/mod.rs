//! The C interface of the File Daemon.
