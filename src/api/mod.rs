//! HTTP in, completions out: the only room that knows axum.
