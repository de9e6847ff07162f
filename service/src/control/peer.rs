//! Who may use the control socket.

use rustix::process::geteuid;
use tokio::net::unix::UCred;

/// Whether the kernel says that the other side is this process's own user, or root. The mode of the
/// socket's file says the same, but somebody may have changed it.
pub(super) fn is_allowed(peer: &UCred) -> bool {
    may_ask(peer.uid(), geteuid().as_raw())
}

fn may_ask(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

#[cfg(test)]
mod tests {
    use super::may_ask;

    #[test]
    fn only_the_own_user_and_root_may_ask() {
        for (peer, own, may) in [
            (0, 0, true),
            (7, 7, true),
            (0, 7, true),
            (7, 0, false),
            (7, 8, false),
        ] {
            assert_eq!(may_ask(peer, own), may, "{peer} asks {own}");
        }
    }
}
