//! Remote backends: OpenAI-shaped clouds.
