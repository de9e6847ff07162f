//! A client's address, as much of it as is logged.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::log::config::LoggedAddress;

/// How many bits of an address are its network.
const V4: u8 = 24;
const V6: u8 = 48;

/// As much of an address as is logged.
pub(super) fn logged_address(address: &str, logged: LoggedAddress) -> Option<Cow<'_, str>> {
    match logged {
        LoggedAddress::Full => Some(Cow::Borrowed(address)),
        LoggedAddress::Network => {
            let address: IpAddr = address.parse().ok()?;
            let address = address.to_canonical();
            let length = if address.is_ipv4() { V4 } else { V6 };
            let network = IpNet::new(address, length).ok()?.trunc();
            Some(Cow::Owned(network.to_string()))
        }
        LoggedAddress::Off => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shortened_to_its_network() {
        for (address, network) in [
            ("192.0.2.77", Some("192.0.2.0/24")),
            ("::ffff:192.0.2.77", Some("192.0.2.0/24")),
            ("2001:db8:1:2::7", Some("2001:db8:1::/48")),
            ("::1", Some("::/48")),
            ("unknown", None),
        ] {
            let shortened = logged_address(address, LoggedAddress::Network);
            assert_eq!(shortened.as_deref(), network, "{address}");
            let full = logged_address(address, LoggedAddress::Full);
            assert_eq!(full.as_deref(), Some(address));
            assert_eq!(logged_address(address, LoggedAddress::Off), None);
        }
    }
}
