//! What a configuration says of requests, swapped as one when it is read again.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::guard::Guard;
use super::{Api, Service};
use crate::config::ServeConfig;
use crate::policy::Rules;

/// Where requests go and who may send them: what a request sees when it comes it sees to its end,
/// whatever is loaded meanwhile. Numbers of tenants mean something in the rules that gave them out.
pub(super) struct Live<S> {
    pub(super) service: S,
    pub(super) rules: Rules,
    pub(super) guard: Guard,
    /// Whether Copilot's clients get a token here.
    pub(super) copilot_token: bool,
    /// Whether a request that names another model is refused.
    pub(super) strict_model: bool,
}

impl<S> Live<S> {
    pub(super) fn new(service: S, rules: Rules, serve: &ServeConfig) -> Self {
        let &ServeConfig { copilot_token, strict_model, .. } = serve;
        Self { service, rules, guard: Guard::new(serve), copilot_token, strict_model }
    }
}

/// The middleware that takes the configuration, once for each request.
pub(super) async fn take<S: Service>(
    State(api): State<Arc<Api<S>>>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(api.live());
    next.run(request).await
}

/// The configuration of a request that came through [`take`].
pub(super) fn of<S: Service>(request: &Request) -> Arc<Live<S>> {
    request.extensions().get().cloned().expect("every request takes the configuration")
}
