//! What a connection is made to, and the one reading of a URL that all checks share.

use std::net::IpAddr;

use hyper::Uri;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    /// In lower case; an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// None: neither http nor https, no host, or a host that is a number and no usual address.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let usual = !host.is_empty() && (!ends_in_number(&host) || host.parse::<IpAddr>().is_ok());
        usual.then_some(Self { tls, host, port })
    }

    /// The address, where the host is one and no name.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `host:port`, as CONNECT and Host have it.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Resolvers read `2852039166`, `0xa9fea9fe` and `169.254.43518` as IPv4 addresses, so that what
/// such a host is could be checked here as a name and dialled by a proxy as an address.
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    let hex = last
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    hex || (!last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Option<Origin> {
        Origin::of(&uri.parse().unwrap())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(of("https://A.example/v1"), of("https://a.example:443"));
        assert_ne!(of("https://a.example"), of("http://a.example"));
        assert_eq!(of("http://[::1]:80/v1").unwrap().address(), Some("::1".parse().unwrap()));
        assert_eq!(of("http://[::1]/v1").unwrap().authority(), "[::1]:80");
        assert_eq!(of("https://a.example").unwrap().authority(), "a.example:443");
        assert!(of("/v1").is_none() && of("ftp://a/v1").is_none());
    }

    #[test]
    fn an_address_is_written_in_the_usual_way_or_not_at_all() {
        for host in ["2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376"] {
            assert_eq!(of(&format!("http://{host}/")), None, "{host}");
        }
        for host in ["169.254.169.254.", "a.example.0x7f", "a.1"] {
            assert_eq!(of(&format!("http://{host}/")), None, "{host}");
        }
        for host in
            ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "a.1b", "0x.example", "1.example"]
        {
            assert!(of(&format!("http://{host}/")).is_some(), "{host}");
        }
    }
}
