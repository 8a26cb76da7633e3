//! Reverse proxies: addresses whose connections carry the requests of many senders.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses and networks of proxies. This machine's loopback address always counts as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies(Vec<IpNet>);

impl Proxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Returns whether an address counts as a proxy. Of the IPv4 loopback network, only 127.0.0.1 counts by itself.
    pub(crate) fn has(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let is_this_machine = match peer {
            IpAddr::V4(address) => address == std::net::Ipv4Addr::LOCALHOST,
            IpAddr::V6(address) => address.is_loopback(),
        };
        is_this_machine || self.0.iter().any(|network| network.contains(&peer))
    }
}

/// Parses an address, or a network as `172.16.0.0/12`.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map_err(|_| "write addresses and networks, as in 192.0.2.1,172.16.0.0/12".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_network_is_a_proxy_and_so_is_this_machine() {
        let proxies = Proxies::new(
            ["192.0.2.1", " 172.16.0.0/12", "2001:db8::/32"].map(|text| network(text).unwrap()).into(),
        );
        for peer in ["127.0.0.1", "::1", "192.0.2.1", "::ffff:192.0.2.1", "172.18.0.2", "2001:db8::7"] {
            assert!(proxies.has(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["127.0.0.2", "192.0.2.2", "172.32.0.1", "2001:db9::7"] {
            assert!(!proxies.has(peer.parse().unwrap()), "{peer}");
        }
        for wrong in ["", "proxy.example.com", "192.0.2.1/33", "192.0.2"] {
            assert!(network(wrong).unwrap_err().contains("192.0.2.1,"), "{wrong}");
        }
    }
}
