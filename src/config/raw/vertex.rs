//! `[cloud.vertex]`.

use super::section::Section;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawVertex {
    pub api: Option<String>,
    pub project: Option<String>,
    pub location: Option<String>,
    pub regional_endpoint: Option<bool>,
    pub thinking_budget: Option<i64>,
    pub thinking_level: Option<String>,
    pub credentials_file: Option<String>,
    pub token_exchange: Option<bool>,
}

impl RawVertex {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.api = section.take("api");
        self.project = section.take("project");
        self.location = section.take("location");
        self.regional_endpoint = section.take("regional_endpoint");
        self.thinking_budget = section.take("thinking_budget");
        self.thinking_level = section.take("thinking_level");
        self.credentials_file = section.take("credentials_file");
        self.token_exchange = section.take("token_exchange");
    }
}
