//! Who is asked: a server that runs somewhere, or a weir in this process.

use std::net::{Ipv4Addr, SocketAddr};

use super::dialect::{Ask, Dialect};
use super::http::{Answer, Endpoint, Wrong};
use super::policies::Window;
use crate::app::{self, App, Facts};
use crate::cli::Failure;
use crate::config::Config;

/// How servers name the count of tokens they generated, weir first.
const GENERATED: [&str; 2] =
    ["weir_tokens_total{kind=\"generated\"}", "llamacpp:tokens_predicted_total"];

#[derive(Clone)]
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    pub(super) dialect: Dialect,
    /// What Ollama calls its model; others take any name.
    pub(super) model: String,
    /// Characters of a prompt that it takes; None: it cuts what is too long.
    pub(super) room: Option<usize>,
}

/// What is sent, ready to go.
pub(super) struct Request {
    endpoint: Endpoint,
    pub(super) dialect: Dialect,
    headers: String,
    body: Vec<u8>,
}

impl Request {
    pub(super) async fn send(&self) -> Result<Answer, Wrong> {
        self.endpoint.post(self.dialect.path(), &self.headers, &self.body).await
    }
}

impl Server {
    /// `session`: several developers come from one address here, as behind a proxy.
    pub(super) fn request(&self, ask: &Ask, session: &str) -> Request {
        Request {
            endpoint: self.endpoint.clone(),
            dialect: self.dialect,
            headers: format!("x-weir-session: {session}\r\n"),
            body: self.dialect.body(ask, &self.model),
        }
    }

    /// What of the text around a cursor it has room for, three quarters of it before.
    pub(super) fn fit<'t>(&self, prefix: &'t str, suffix: &'t str) -> (&'t str, &'t str) {
        let Some(room) = self.room else { return (prefix, suffix) };
        let suffix = Window::Characters(room / 4).behind(suffix);
        (Window::Characters(room - room / 4).before(prefix), suffix)
    }

    /// Only llama.cpp's clients have prompts read ahead.
    pub(super) fn warms_up(&self) -> bool {
        self.dialect == Dialect::Infill
    }

    /// Tokens that it has generated since its start; None: it does not say.
    pub(super) async fn generated(&self) -> Option<u64> {
        let text = self.endpoint.get("/metrics").await.ok()?.whole().await.ok()?;
        generated(&String::from_utf8_lossy(&text))
    }
}

fn generated(metrics: &str) -> Option<u64> {
    let of = |name: &str| {
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix(name))?;
        count.trim().parse::<f64>().ok().map(|count| count as u64)
    };
    GENERATED.iter().find_map(|name| of(name))
}

/// A weir on a free port of the loopback, without clouds.
pub(super) struct Own {
    app: App,
}

impl Own {
    pub(super) async fn start(config: &Config) -> Result<Self, Failure> {
        let mut config = config.clone();
        config.offline = true;
        config.serve.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        config.serve.listen_too.clear();
        let app = app::start(config).await?;
        app.engine().started().await?;
        Ok(Self { app })
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.app.addresses()[0].into()
    }

    #[cfg(test)]
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.app.addresses()[0])
    }

    /// What was loaded.
    pub(super) fn facts(&self) -> &Facts {
        self.app.facts()
    }

    pub(super) async fn stop(self) {
        self.app.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_cut_to_what_there_is_room_for() {
        let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into();
        let dialect = Dialect::Completion;
        let small = Server { endpoint, dialect, model: String::new(), room: Some(8) };
        assert_eq!(small.fit("0123456789", "abcdef"), ("456789", "ab"));
        let large = Server { room: None, ..small };
        assert_eq!(large.fit("0123456789", "abcdef"), ("0123456789", "abcdef"));
    }

    #[test]
    fn counts_are_found_in_the_metrics_of_either() {
        let weir = "# HELP x\nweir_tokens_total{kind=\"cached\"} 5\n\
            weir_tokens_total{kind=\"generated\"} 12\n";
        assert_eq!(generated(weir), Some(12));
        assert_eq!(generated("llamacpp:tokens_predicted_total 20\n"), Some(20));
        assert_eq!(generated("other 1\n"), None);
    }
}
