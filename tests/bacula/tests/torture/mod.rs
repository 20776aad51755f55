//! What daemons, connections and the plugin itself may meet in the middle of a job, on real daemons: death, cancels, panics, many
//! jobs, many jobs at once.
//!
//! Short forms here, long ones with `make torture-daemons`. What is random comes of a seed, which a failure names.

mod cancel;
mod death;
mod leaks;
mod load;
mod panics;
