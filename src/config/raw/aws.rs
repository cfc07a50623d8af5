//! The table `aws` of a cloud row, as typed.

use super::section::Section;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawAws {
    pub region: Option<String>,
    pub api: Option<String>,
    pub shape: Option<String>,
    pub fips: Option<bool>,
    pub endpoint: Option<String>,
    pub container: Option<String>,
    pub inference_component: Option<String>,
    pub credentials: Option<String>,
    pub profile: Option<String>,
    pub role_arn: Option<String>,
    pub external_id: Option<String>,
    pub sts_url: Option<String>,
}

impl RawAws {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.region = section.take("region");
        self.api = section.take("api");
        self.shape = section.take("shape");
        self.fips = section.take("fips");
        self.endpoint = section.take("endpoint");
        self.container = section.take("container");
        self.inference_component = section.take("inference_component");
        self.credentials = section.take("credentials");
        self.profile = section.take("profile");
        self.role_arn = section.take("role_arn");
        self.external_id = section.take("external_id");
        self.sts_url = section.take("sts_url");
    }
}
