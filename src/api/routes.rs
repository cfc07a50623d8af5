//! Every door there is, as data: the router is built from this table and from nothing else, and so
//! is the test that knocks at each without a key.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};

use super::error::{self, Tongue};
use super::{
    Api, Service, chat, clouds, completions, copilot, explain, llama_cpp, lmstudio, mistral,
    models, ollama, peer, status, tabby, tenant, tgi, usage,
};

/// One path, and a second with `/v1` before it where it is part of the dialect.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    pub method: &'static str,
    pub path: &'static str,
    /// Whether `/v1` may stand before the path.
    pub prefixed: bool,
    pub access: Access,
    /// How it says that something is wrong.
    tongue: Tongue,
    leads_to: Room,
}

/// Who may come in where tenants have keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a key.
    Keyed,
    /// Whose row says `admin`. Where nobody has a key: whoever asks from this machine.
    Admin,
    /// Everybody: a probe has no key, and learns nothing but that we are there. Over HTTP every one
    /// of them that answers GET answers HEAD.
    Open,
}

#[derive(Clone, Copy, Debug)]
enum Room {
    Completions,
    Chat,
    Models,
    Model,
    Usage,
    Explain,
    Clouds,
    PauseCloud,
    ResumeCloud,
    Peer,
    OllamaAlive,
    OllamaGenerate,
    OllamaChat,
    OllamaTags,
    OllamaShow,
    OllamaPs,
    OllamaVersion,
    TgiGenerate,
    TgiStream,
    LmStudioModels,
    LmStudioModel,
    LmStudioCompletions,
    LmStudioChat,
    Health,
    Ready,
    Metrics,
    Infill,
    Completion,
    Props,
    Slots,
    Tokenize,
    Detokenize,
    ApplyTemplate,
    Mistral,
    TabbyHealth,
    TabbySetting,
    TabbyEvent,
    Copilot,
    CopilotToken,
    CopilotUser,
}

/// The table.
pub const ROUTES: &[Door] = &[
    dialect("POST", "/completions", Room::Completions),
    dialect("POST", "/chat/completions", Room::Chat),
    dialect("GET", "/models", Room::Models),
    dialect("GET", "/models/{*id}", Room::Model),
    dialect("GET", "/usage", Room::Usage),
    dialect("POST", "/route/explain", Room::Explain),
    admin("GET", "/clouds", Room::Clouds),
    admin("POST", "/clouds/{name}/pause", Room::PauseCloud),
    admin("POST", "/clouds/{name}/resume", Room::ResumeCloud),
    dialect("GET", "/peer", Room::Peer),
    // Where Tabby's clients look for it.
    exact("POST", "/v1beta/chat/completions", Tongue::OpenAi, Room::Chat),
    Door { access: Access::Open, ..exact("GET", "/", Tongue::Ollama, Room::OllamaAlive) },
    exact("POST", "/api/generate", Tongue::Ollama, Room::OllamaGenerate),
    exact("POST", "/api/chat", Tongue::Ollama, Room::OllamaChat),
    exact("GET", "/api/tags", Tongue::Ollama, Room::OllamaTags),
    exact("POST", "/api/show", Tongue::Ollama, Room::OllamaShow),
    exact("GET", "/api/ps", Tongue::Ollama, Room::OllamaPs),
    exact("GET", "/api/version", Tongue::Ollama, Room::OllamaVersion),
    exact("POST", "/generate", Tongue::Tgi, Room::TgiGenerate),
    exact("POST", "/generate_stream", Tongue::Tgi, Room::TgiStream),
    exact("GET", "/api/v0/models", Tongue::OpenAi, Room::LmStudioModels),
    exact("GET", "/api/v0/models/{*id}", Tongue::OpenAi, Room::LmStudioModel),
    exact("POST", "/api/v0/completions", Tongue::OpenAi, Room::LmStudioCompletions),
    exact("POST", "/api/v0/chat/completions", Tongue::OpenAi, Room::LmStudioChat),
    own("/health", Access::Open, Room::Health),
    own("/ready", Access::Open, Room::Ready),
    own("/metrics", Access::Keyed, Room::Metrics),
    exact("POST", "/infill", Tongue::LlamaCpp, Room::Infill),
    exact("POST", "/completion", Tongue::LlamaCpp, Room::Completion),
    exact("GET", "/props", Tongue::LlamaCpp, Room::Props),
    exact("GET", "/slots", Tongue::LlamaCpp, Room::Slots),
    exact("POST", "/tokenize", Tongue::LlamaCpp, Room::Tokenize),
    exact("POST", "/detokenize", Tongue::LlamaCpp, Room::Detokenize),
    exact("POST", "/apply-template", Tongue::LlamaCpp, Room::ApplyTemplate),
    Door { tongue: Tongue::Mistral, ..dialect("POST", "/fim/completions", Room::Mistral) },
    exact("GET", "/v1/health", Tongue::OpenAi, Room::TabbyHealth),
    exact("POST", "/v1/health", Tongue::OpenAi, Room::TabbyHealth),
    exact("GET", "/v1beta/server_setting", Tongue::OpenAi, Room::TabbySetting),
    exact("POST", "/v1/events", Tongue::OpenAi, Room::TabbyEvent),
    dialect("POST", "/engines/{engine}/completions", Room::Copilot),
    exact("GET", "/copilot_internal/v2/token", Tongue::OpenAi, Room::CopilotToken),
    exact("GET", "/copilot_internal/user", Tongue::OpenAi, Room::CopilotUser),
];

const fn dialect(method: &'static str, path: &'static str, leads_to: Room) -> Door {
    Door { method, path, prefixed: true, access: Access::Keyed, tongue: Tongue::OpenAi, leads_to }
}

const fn admin(method: &'static str, path: &'static str, leads_to: Room) -> Door {
    Door { access: Access::Admin, ..dialect(method, path, leads_to) }
}

const fn own(path: &'static str, access: Access, leads_to: Room) -> Door {
    Door { access, prefixed: false, ..dialect("GET", path, leads_to) }
}

/// A door that has one path and speaks another tongue.
const fn exact(method: &'static str, path: &'static str, tongue: Tongue, leads_to: Room) -> Door {
    Door { method, path, prefixed: false, access: Access::Keyed, tongue, leads_to }
}

impl Door {
    fn handler<S: Service>(&self) -> MethodRouter<Arc<Api<S>>> {
        let room = self.room::<S>();
        match self.access {
            Access::Admin => room.route_layer(from_fn(tenant::admin::<S>)),
            Access::Keyed | Access::Open => room,
        }
    }

    fn room<S: Service>(&self) -> MethodRouter<Arc<Api<S>>> {
        match self.leads_to {
            Room::Completions => post(completions::post::<S>),
            Room::Chat => post(chat::post::<S>),
            Room::Models => get(models::list::<S>),
            Room::Model => get(models::one::<S>),
            Room::Usage => get(usage::get::<S>),
            Room::Explain => post(explain::post::<S>),
            Room::Clouds => get(clouds::list::<S>),
            Room::PauseCloud => post(clouds::pause::<S>),
            Room::ResumeCloud => post(clouds::resume::<S>),
            Room::Peer => get(peer::get::<S>),
            Room::OllamaAlive => get(ollama::card::alive),
            Room::OllamaGenerate => post(ollama::generate::<S>),
            Room::OllamaChat => post(ollama::chat::<S>),
            Room::OllamaTags => get(ollama::card::tags::<S>),
            Room::OllamaShow => post(ollama::card::show::<S>),
            Room::OllamaPs => get(ollama::card::ps::<S>),
            Room::OllamaVersion => get(ollama::card::version),
            Room::TgiGenerate => post(tgi::generate::<S>),
            Room::TgiStream => post(tgi::generate_stream::<S>),
            Room::LmStudioModels => get(lmstudio::models::<S>),
            Room::LmStudioModel => get(lmstudio::model::<S>),
            Room::LmStudioCompletions => post(lmstudio::completions::<S>),
            Room::LmStudioChat => post(lmstudio::chat::<S>),
            Room::Health => get(status::health),
            Room::Ready => get(status::ready::<S>),
            Room::Metrics => get(status::metrics::<S>),
            Room::Infill => post(llama_cpp::infill::<S>),
            Room::Completion => post(llama_cpp::completion::<S>),
            Room::Props => get(llama_cpp::props::props::<S>),
            Room::Slots => get(llama_cpp::props::slots::<S>),
            Room::Tokenize => post(llama_cpp::props::tokenize::<S>),
            Room::Detokenize => post(llama_cpp::props::detokenize::<S>),
            Room::ApplyTemplate => post(llama_cpp::props::apply_template::<S>),
            Room::Mistral => post(mistral::post::<S>),
            Room::TabbyHealth if self.method == "POST" => post(tabby::status::health::<S>),
            Room::TabbyHealth => get(tabby::status::health::<S>),
            Room::TabbySetting => get(tabby::status::setting),
            Room::TabbyEvent => post(tabby::event::<S>),
            Room::Copilot => post(copilot::post::<S>),
            Room::CopilotToken => get(copilot::token::<S>),
            Room::CopilotUser => get(copilot::user::<S>),
        }
    }
}

pub(super) fn all<S: Service>() -> Router<Arc<Api<S>>> {
    let mut router = Router::new();
    for door in ROUTES {
        router = router.route(door.path, door.handler::<S>());
        if door.prefixed {
            router = router.route(&format!("/v1{}", door.path), door.handler::<S>());
        }
    }
    router
}

/// The middleware that lets every reply, an error too, be in the words of the path it is for.
pub(super) async fn speak(request: Request, next: Next) -> Response {
    let door = request.extensions().get::<MatchedPath>().and_then(|path| leading(path.as_str()));
    let mut response = next.run(request).await;
    let Some(door) = door else { return response };
    if matches!(door.leads_to, Room::Copilot | Room::CopilotToken | Room::CopilotUser) {
        copilot::sign(response.headers_mut());
    }
    error::translate(response, door.tongue)
}

fn leading(path: &str) -> Option<&'static Door> {
    let bare = path.strip_prefix("/v1").unwrap_or(path);
    ROUTES.iter().find(|door| door.path == path || (door.prefixed && door.path == bare))
}

/// Whether a path is one that needs no key; what is no route at all needs one.
pub(super) fn is_open(path: &str) -> bool {
    ROUTES.iter().any(|door| door.access == Access::Open && door.path == path)
}
