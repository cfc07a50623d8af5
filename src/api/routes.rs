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
    unprefixed("POST", "/v1beta/chat/completions", Room::Chat),
    Door { access: Access::Open, ..ollama("GET", "/", Room::OllamaAlive) },
    ollama("POST", "/api/generate", Room::OllamaGenerate),
    ollama("POST", "/api/chat", Room::OllamaChat),
    ollama("GET", "/api/tags", Room::OllamaTags),
    ollama("POST", "/api/show", Room::OllamaShow),
    ollama("GET", "/api/ps", Room::OllamaPs),
    ollama("GET", "/api/version", Room::OllamaVersion),
    tgi("/generate", Room::TgiGenerate),
    tgi("/generate_stream", Room::TgiStream),
    unprefixed("GET", "/api/v0/models", Room::LmStudioModels),
    unprefixed("GET", "/api/v0/models/{*id}", Room::LmStudioModel),
    unprefixed("POST", "/api/v0/completions", Room::LmStudioCompletions),
    unprefixed("POST", "/api/v0/chat/completions", Room::LmStudioChat),
    own("/health", Access::Open, Room::Health),
    own("/ready", Access::Open, Room::Ready),
    own("/metrics", Access::Keyed, Room::Metrics),
    llama("POST", "/infill", Room::Infill),
    llama("POST", "/completion", Room::Completion),
    llama("GET", "/props", Room::Props),
    llama("GET", "/slots", Room::Slots),
    llama("POST", "/tokenize", Room::Tokenize),
    llama("POST", "/detokenize", Room::Detokenize),
    llama("POST", "/apply-template", Room::ApplyTemplate),
    Door { tongue: Tongue::Mistral, ..dialect("POST", "/fim/completions", Room::Mistral) },
    unprefixed("GET", "/v1/health", Room::TabbyHealth),
    unprefixed("POST", "/v1/health", Room::TabbyHealth),
    unprefixed("GET", "/v1beta/server_setting", Room::TabbySetting),
    unprefixed("POST", "/v1/events", Room::TabbyEvent),
    dialect("POST", "/engines/{engine}/completions", Room::Copilot),
    unprefixed("GET", "/copilot_internal/v2/token", Room::CopilotToken),
    unprefixed("GET", "/copilot_internal/user", Room::CopilotUser),
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

const fn ollama(method: &'static str, path: &'static str, leads_to: Room) -> Door {
    Door { tongue: Tongue::Ollama, prefixed: false, ..dialect(method, path, leads_to) }
}

const fn tgi(path: &'static str, leads_to: Room) -> Door {
    Door { tongue: Tongue::Tgi, prefixed: false, ..dialect("POST", path, leads_to) }
}

const fn unprefixed(method: &'static str, path: &'static str, leads_to: Room) -> Door {
    Door { prefixed: false, ..dialect(method, path, leads_to) }
}

const fn llama(method: &'static str, path: &'static str, leads_to: Room) -> Door {
    Door { tongue: Tongue::LlamaCpp, prefixed: false, ..dialect(method, path, leads_to) }
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
    if matches!(door.leads_to, Room::Copilot) {
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
