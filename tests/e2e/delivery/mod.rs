//! A phone's registrations, and its pushes from the POST to the acknowledgement, whatever disturbs them.

mod account_bounds;
mod answers;
mod arrival;
mod commands;
mod crash;
mod crash_points;
mod crash_unwritten;
mod disk;
mod domain_bounds;
mod follow;
mod hostile;
mod limits;
mod log;
mod overload;
mod registration;
mod stop;
