//! `doctor`: tries what is configured, and says in a line for each check how it went and what to do.
//!
//! An [`Examination`] is of one subject, such as a listener or an upstream's replica, and ends with a
//! [`Diagnosis`]. All of them run at once, each for a limited time, so that one that hangs or panics
//! costs a line and not the others.
//!
//! Nothing is changed: no file is written, and no address is kept. What is printed holds no secret, and
//! no control character of a server that was asked.

mod certificate;
mod clock;
mod creation;
mod examination;
mod finding;
mod listener;
mod process;
mod report;

pub use self::certificate::certificate;
pub use self::clock::clock;
pub use self::creation::{CreationError, can_create_in};
pub use self::examination::{Examination, REQUEST, examine};
pub use self::finding::{CheckResult, Diagnosis, Finding};
pub use self::listener::{ExaminedListener, listener};
pub use self::process::process;
pub use self::report::{DoctorFormat, DoctorReport};
