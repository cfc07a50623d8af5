//! A weir that runs, as commands find and ask it.

use serde::de::DeserializeOwned;

use super::Failure;
use super::serve::reachable;
use crate::cloud::{Question, Remote, Said};
use crate::config::{self, ServeConfig};

/// Which weir is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The weir that runs there, as in http://127.0.0.1:8012, instead of where the configuration
    /// listens; where it wants a key, it is shown the one in WEIR_API_KEY
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<hyper::Uri>,
}

impl Where {
    pub(super) fn remote(&self, serve: &ServeConfig) -> Result<Remote, Failure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => {
                // A validated configuration listens somewhere.
                let address = serve.listen.first().map(reachable);
                let text = address.map(|address| format!("http://{address}")).unwrap_or_default();
                text.parse().map_err(|_| Failure::Other("--url says which weir to ask".into()))?
            }
        };
        let key = config::peer_key().map_err(Failure::Other)?;
        Ok(Remote::new(&url, key)?)
    }
}

/// The body of a good answer.
pub(super) async fn ask(remote: &Remote, question: Question<'_>) -> Result<Said, Failure> {
    let said = remote.ask(question).await?;
    if said.status == 200 { Ok(said) } else { Err(refused(&said)) }
}

/// What an answer holds.
pub(super) fn read<T: DeserializeOwned>(said: &Said) -> Result<T, Failure> {
    serde_json::from_slice(&said.body).map_err(|error| {
        Failure::Other(format!("what answers is no weir of this version: {error}"))
    })
}

/// A list, as every door that gives one gives it.
#[derive(serde::Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
}

fn refused(said: &Said) -> Failure {
    #[derive(serde::Deserialize)]
    struct Envelope {
        error: Object,
    }
    #[derive(serde::Deserialize)]
    struct Object {
        message: String,
    }
    let told = serde_json::from_slice::<Envelope>(&said.body);
    let told = told.map_or_else(|_| "no weir's answer".into(), |told| told.error.message);
    Failure::Other(format!("{}: {told}", said.status))
}
