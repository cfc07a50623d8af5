//! `[cloud.vertex]`: a project's place on Vertex AI, and which of its APIs.

use std::sync::Arc;

use hyper::Uri;

use super::Checker;
use super::azure::is_made_of;
use crate::config::raw::RawVertex;
use crate::config::services::{GoogleCredentials, Thinking, Vertex, VertexApi};
use crate::config::{CloudService, RawCloud};

const APIS: [(&str, VertexApi); 3] = [
    ("generate-content", VertexApi::GenerateContent),
    ("openai", VertexApi::OpenAi),
    ("raw-predict", VertexApi::RawPredict),
];
/// Locations of several regions, which have hosts of the regional kind only.
const MULTI_REGIONS: [&str; 2] = ["us", "eu"];
/// The most that a model thinks.
const THINKING_MAX: i64 = 32_768;
/// Where a machine of Google's learns who it is.
const METADATA: &str = "metadata.google.internal";

impl Checker<'_> {
    /// Where the row's project is; None: something was complained about.
    pub(super) fn vertex_url(&mut self, raw: &RawCloud) -> Option<String> {
        let vertex = raw.services.vertex.as_ref()?;
        let project = self.place("vertex.project", vertex.project.as_deref(), b"-.:");
        let location = self.place("vertex.location", vertex.location.as_deref(), b"-");
        let (project, location) = (project?, location?);
        let regional = vertex.regional_endpoint.unwrap_or(false);
        let host = match location {
            "global" if regional => {
                self.complain("vertex.regional_endpoint", "is for a region: global has none");
                return None;
            }
            "global" => "aiplatform.googleapis.com".to_owned(),
            many if regional || MULTI_REGIONS.contains(&many) => {
                format!("aiplatform.{many}.rep.googleapis.com")
            }
            region => format!("{region}-aiplatform.googleapis.com"),
        };
        let below = match self.vertex_api(vertex) {
            VertexApi::GenerateContent => "publishers/google",
            VertexApi::OpenAi => "endpoints/openapi",
            VertexApi::RawPredict => "publishers/mistralai",
        };
        Some(format!("https://{host}/v1/projects/{project}/locations/{location}/{below}"))
    }

    fn place<'t>(&mut self, key: &str, typed: Option<&'t str>, more: &[u8]) -> Option<&'t str> {
        let Some(name) = typed else {
            self.complain(key, "is required, or base_url");
            return None;
        };
        let is_one = is_made_of(name, 64, more) && !name.bytes().any(|b| b.is_ascii_uppercase());
        if !is_one {
            self.complain(key, "must be a name of lower case letters, digits and -");
        }
        is_one.then_some(name)
    }

    fn vertex_api(&mut self, vertex: &RawVertex) -> VertexApi {
        self.choice("vertex.api", vertex.api.as_deref(), VertexApi::GenerateContent, &APIS)
    }

    pub(super) fn vertex(&mut self, raw: &RawCloud) -> Option<CloudService> {
        let none = RawVertex::default();
        let vertex = raw.services.vertex.as_ref().unwrap_or(&none);
        let api = self.vertex_api(vertex);
        if raw.api_key_env.is_some() || raw.api_key_file.is_some() {
            let message = "and api_key_file are not for Vertex AI, which takes no keys; \
                           vertex.credentials_file is";
            self.complain("api_key_env", message);
        }
        if api != VertexApi::OpenAi
            && raw.model.as_deref().is_some_and(|model| !is_made_of(model, 128, b"-_.@"))
        {
            self.complain("model", "must be the name alone, without a publisher");
        }
        let thinking = self.thinking(vertex, api);
        let credentials = self.google_credentials(vertex)?;
        Some(CloudService::Vertex(Arc::new(Vertex { api, thinking, credentials })))
    }

    fn thinking(&mut self, vertex: &RawVertex, api: VertexApi) -> Option<Thinking> {
        let (budget, level) = (vertex.thinking_budget, vertex.thinking_level.as_deref());
        let key = if budget.is_some() { "vertex.thinking_budget" } else { "vertex.thinking_level" };
        if api != VertexApi::GenerateContent && (budget.is_some() || level.is_some()) {
            self.complain(key, "is for vertex.api = \"generate-content\" only");
        }
        if budget.is_some() && level.is_some() {
            self.complain(key, "and vertex.thinking_level exclude each other");
        }
        if let Some(budget) = budget {
            let budget = self.within(key, Some(budget), 0, -1..=THINKING_MAX);
            return i32::try_from(budget).ok().map(Thinking::Budget);
        }
        const LEVELS: [&str; 4] = ["minimal", "low", "medium", "high"];
        let words = LEVELS.map(|word| (word, Some(word)));
        Some(Thinking::Level(self.choice(key, level, None, &words)?.into()))
    }

    /// In the order of Google's own libraries: a file, the file that the environment names, the
    /// machine's own account.
    fn google_credentials(&mut self, vertex: &RawVertex) -> Option<GoogleCredentials> {
        const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
        let exchange = vertex.token_exchange.unwrap_or(false);
        let variable = |name| (self.env)(name).ok().filter(|text: &String| !text.is_empty());
        let file = vertex.credentials_file.clone().or_else(|| variable(VARIABLE));
        if let Some(file) = file {
            return self.google_file(std::path::Path::new(&file), exchange);
        }
        if exchange {
            self.complain("vertex.token_exchange", "is for the key of a service account");
        }
        let host = variable("GCE_METADATA_HOST").unwrap_or_else(|| METADATA.to_owned());
        match format!("http://{host}").parse::<Uri>() {
            Ok(server) if server.host().is_some() => Some(GoogleCredentials::Metadata { server }),
            _ => {
                let message = "variable GCE_METADATA_HOST must be a host, with or without a port";
                self.complain("vertex.credentials_file", message);
                None
            }
        }
    }
}
