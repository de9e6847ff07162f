//! `top`: the state of a running program at a terminal, over its metrics endpoint.
//!
//! ```text
//! page       one scrape, bounded in bytes, samples and time
//! scrapes    one after the other, no two within a second
//! reading    the series of it that are shown
//! history    the readings of the last seconds: rates and quantiles
//! state      what is shown, in plain figures; what is wrong comes first
//! view       the state as lines of text
//! screen     the loop of a terminal: keys, pages, signals, and the way back
//! ```
//!
//! All but `screen`, `scrapes` and `page` are pure. Nothing that a server says reaches the terminal as it is: see
//! [`escaped`].

mod escaped;
mod history;
mod keys;
mod page;
mod problems;
mod reading;
mod scrapes;
mod screen;
mod state;
mod table;
mod target;
mod terminal;
mod view;
mod wrapped;

pub use self::screen::{TopCall, TopError};
pub use self::target::{TopTarget, TopTargetError};
