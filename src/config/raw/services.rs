//! The tables of a `[[cloud]]` row that only one provider has.

use super::section::Section;
use super::{RawAzure, RawVertex};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawServices {
    pub openai: Option<RawOpenAi>,
    pub openrouter: Option<RawOpenRouter>,
    pub oci: Option<RawOci>,
    pub azure: Option<RawAzure>,
    pub vertex: Option<RawVertex>,
    pub aws: Option<RawAws>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawOpenAi {
    pub max_completion_tokens: Option<bool>,
    pub reasoning_effort: Option<String>,
    pub sampling: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawOpenRouter {
    pub only: Option<Vec<String>>,
    pub zdr: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawOci {
    pub api: Option<String>,
    pub region: Option<String>,
    pub domain: Option<String>,
    pub compartment: Option<String>,
    pub endpoint: Option<String>,
    pub format: Option<String>,
    pub config_file: Option<String>,
    pub profile: Option<String>,
    pub tenancy: Option<String>,
    pub user: Option<String>,
    pub fingerprint: Option<String>,
    pub key_file: Option<String>,
}

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

impl RawServices {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.openai = section.table("openai", RawOpenAi::read);
        self.openrouter = section.table("openrouter", RawOpenRouter::read);
        self.oci = section.table("oci", RawOci::read);
        self.azure = section.table("azure", RawAzure::read);
        self.vertex = section.table("vertex", RawVertex::read);
        self.aws = section.table("aws", RawAws::read);
    }
}

impl RawOpenAi {
    fn read(&mut self, section: &mut Section<'_>) {
        self.max_completion_tokens = section.take("max_completion_tokens");
        self.reasoning_effort = section.take("reasoning_effort");
        self.sampling = section.take("sampling");
    }
}

impl RawOpenRouter {
    fn read(&mut self, section: &mut Section<'_>) {
        self.only = section.take("only");
        self.zdr = section.take("zdr");
    }
}

impl RawOci {
    fn read(&mut self, section: &mut Section<'_>) {
        self.api = section.take("api");
        self.region = section.take("region");
        self.domain = section.take("domain");
        self.compartment = section.take("compartment");
        self.endpoint = section.take("endpoint");
        self.format = section.take("format");
        self.config_file = section.take("config_file");
        self.profile = section.take("profile");
        self.tenancy = section.take("tenancy");
        self.user = section.take("user");
        self.fingerprint = section.take("fingerprint");
        self.key_file = section.take("key_file");
    }
}

impl RawAws {
    fn read(&mut self, section: &mut Section<'_>) {
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
