//! `[cloud.azure]`.

use super::section::Section;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawAzure {
    pub resource: Option<String>,
    pub partition: Option<String>,
    pub api_version: Option<String>,
    pub reasoning_effort: Option<String>,
    pub auth: Option<String>,
    pub tenant_id: Option<String>,
    pub client_id: Option<String>,
    pub client_secret_env: Option<String>,
    pub client_secret_file: Option<String>,
    pub token_file: Option<String>,
    pub scope: Option<String>,
    pub authority: Option<String>,
}

impl RawAzure {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.resource = section.take("resource");
        self.partition = section.take("partition");
        self.api_version = section.take("api_version");
        self.reasoning_effort = section.take("reasoning_effort");
        self.auth = section.take("auth");
        self.tenant_id = section.take("tenant_id");
        self.client_id = section.take("client_id");
        self.client_secret_env = section.take("client_secret_env");
        self.client_secret_file = section.take("client_secret_file");
        self.token_file = section.take("token_file");
        self.scope = section.take("scope");
        self.authority = section.take("authority");
    }
}
