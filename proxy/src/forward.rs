//! The forwarding loop. One request's way, from top to bottom:
//!
//! ```text
//! http1, http2          the client's side: a head and a body in, a response out
//!   head, framing       what a message must look like, and how long its body is: the framing table
//! Forwarder::forward    begin the exchange, refuse or forward, end the exchange
//!   affinity            the upstream that it is for, and the tag that binds an upload session to it
//!   replica_connection  choose a replica, wait for it, take or make a connection
//!     transfer          move both bodies at once, and the response's head
//!       wire, chunked   bytes of bodies, in one reused buffer
//!     keep              the connection goes back to the pool, or is closed
//!     splice            large bodies between two sockets, without a copy
//!   observed            what the metrics and the log see of it
//! own_response          errors, the metrics and the probes, by the proxy itself
//! ```
//!
//! Deliberately not here: where an upstream is and which of its connections are idle ([`Upstream`]),
//! and what an exchange means ([`crate::exchange`]).
//!
//! [`Upstream`]: crate::upstream::Upstream

mod affinity;
mod bounds;
mod buffers;
mod chunked;
mod client_connection;
mod client_side;
mod client_view;
mod download;
mod forwarder;
mod framing;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod head;
mod headers;
mod held;
mod http1;
mod http2;
mod local_url;
mod logged_request;
mod observed;
mod own_credentials;
mod own_response;
mod prefixed;
mod replica_connection;
mod serve;
mod settings;
mod shared;
mod socket;
mod splice;
mod transfer;
mod upstream_connection;
mod upstream_side;
mod wire;

pub(crate) use self::client_connection::ClientConnection;
pub(crate) use self::forwarder::Forwarder;
pub(crate) use self::handshake::handshake;
pub(crate) use self::serve::serve;
pub(crate) use self::settings::ForwardSettings;
pub(crate) use self::shared::Shared;
pub(crate) use self::socket::Socket;

#[cfg(test)]
mod tests;
