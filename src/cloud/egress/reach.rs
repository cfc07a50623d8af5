//! Which addresses may be dialled. Link-local ones answer with the credentials of the machine to
//! whoever asks, so only a credential source that says so gets there.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use super::Origin;

/// The metadata services that a credential source can be: their address, or name.
const METADATA_HOSTS: [&str; 6] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", GOOGLE];
/// The one that has a name; it resolves to 169.254.169.254, or to `fd20:ce::254`.
const GOOGLE: &str = "metadata.google.internal";
const GOOGLE_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// Metadata services outside the link-local range: Alibaba's, Azure's wire server, Oracle's
/// first one.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// What may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything that is not link-local.
    Network,
    /// The metadata services and nothing else.
    Metadata,
}

impl Reach {
    /// Whether an origin may be registered. A name may still resolve to what may not be dialled.
    pub(super) fn permits(self, origin: &Origin) -> bool {
        match self {
            Reach::Metadata => METADATA_HOSTS.contains(&&*origin.host),
            Reach::Network if origin.host == GOOGLE => false,
            Reach::Network => origin.address().is_none_or(|address| self.permits_address(address)),
        }
    }

    fn permits_address(self, address: IpAddr) -> bool {
        match self {
            Reach::Network => !is_link_local(address),
            Reach::Metadata => {
                address == GOOGLE_V6 || METADATA_HOSTS.contains(&&*address.to_string())
            }
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || METADATA_V4.contains(&address),
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            address.is_unicast_link_local()
                || (first, second) == (0xfd00, 0xec2)
                || address == GOOGLE_V6
                || within(address).is_some_and(|inner| is_link_local(inner.into()))
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64, 6to4.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let part = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => part(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => part(high, low),
        [0x2002, high, low, ..] => part(high, low),
        _ => None,
    }
}

/// Names by the system's resolver, without the addresses that may not be dialled.
#[derive(Clone)]
pub(super) struct Resolver {
    reach: Reach,
    names: GaiResolver,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, names: GaiResolver::new() }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.names.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (reach, resolving) = (self.reach, self.names.call(name));
        Box::pin(async move { reachable(resolving.await?, reach) })
    }
}

fn reachable(
    found: impl Iterator<Item = SocketAddr>,
    reach: Reach,
) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let (open, closed): (Vec<_>, Vec<_>) =
        found.partition(|address| reach.permits_address(address.ip()));
    if open.is_empty() && !closed.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the name resolves to addresses that may not be dialled from here",
        ));
    }
    Ok(open.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: [&str; 16] = [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fe80::1",
        "febf:ffff::1",
        "fd00:ec2::254",
        "fd00:ec2:1::2",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "64:ff9b::100.100.100.200",
    ];

    #[test]
    fn link_local_addresses_are_told_in_every_disguise() {
        for text in CLOSED {
            assert!(is_link_local(text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1", "10.0.0.1", "::1", "fec0::1", "fd00:ec3::1", "2001:db8::a9fe"] {
            assert!(!is_link_local(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn only_a_metadata_service_is_reached_as_one() {
        let origin = |host: &str| Origin { tls: false, host: host.to_owned(), port: 80 };
        for host in METADATA_HOSTS {
            assert!(Reach::Metadata.permits(&origin(host)), "{host}");
            assert!(!Reach::Network.permits(&origin(host)), "{host}");
        }
        for host in ["169.254.1.1", "fe80::1", "127.0.0.1", "cloud.example"] {
            assert!(!Reach::Metadata.permits(&origin(host)), "{host}");
        }
        for host in ["127.0.0.1", "::1", "cloud.example"] {
            assert!(Reach::Network.permits(&origin(host)), "{host}");
        }
    }

    #[test]
    fn a_name_leaves_only_what_may_be_dialled() {
        let at = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
        };
        let both = at(&["fe80::1", "10.1.2.3"]);
        let left: Vec<_> = reachable(both.into_iter(), Reach::Network).unwrap().collect();
        assert_eq!(left, at(&["10.1.2.3"]));
        assert!(reachable(at(&CLOSED).into_iter(), Reach::Network).is_err());
        let google = at(&["169.254.169.254", "fd20:ce::254"]);
        assert_eq!(reachable(google.into_iter(), Reach::Metadata).unwrap().len(), 2);
        assert!(reachable(at(&["10.1.2.3"]).into_iter(), Reach::Metadata).is_err());
    }

    /// The system reads this name as an address, which stands in for a name server's answer.
    #[tokio::test]
    async fn what_the_system_resolves_is_held_against_it() {
        let name: Name = "2852039166".parse().unwrap();
        let refused = Resolver::new(Reach::Network).call(name.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let mut found = Resolver::new(Reach::Metadata).call(name).await.unwrap();
        assert_eq!(found.next().unwrap().ip(), IpAddr::from([169, 254, 169, 254]));
    }
}
