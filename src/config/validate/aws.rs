//! The table `aws` of rows with `provider = "bedrock"` or `"sagemaker"`.

mod credentials;
mod hosts;

use std::sync::Arc;

use super::Checker;
use crate::config::raw::{RawAws, RawCloud};
use crate::config::services::aws::{AwsApi, AwsConfig, Container, InvokeShape, SageMakerEndpoint};
use crate::config::{Secret, validate};

/// Longest name of an endpoint and its components that SageMaker gives.
const ENDPOINT_NAME_MAX: usize = 63;

/// What Bedrock's keys are looked for in, as by AWS's own tools.
const BEARER: &str = "AWS_BEARER_TOKEN_BEDROCK";

impl Checker<'_> {
    /// A row at AWS. `api_key` becomes the environment's bearer token where the row has no key and
    /// does not say where its credentials are.
    pub(super) fn aws(
        &mut self,
        raw: &RawCloud,
        provider: &str,
        api_key: &mut Option<Secret>,
    ) -> Option<AwsConfig> {
        let typed = raw.services.aws.clone().unwrap_or_default();
        let region = self.aws_region(&typed);
        let api = if provider == "sagemaker" {
            self.sagemaker(&typed).map(AwsApi::SageMaker)
        } else {
            self.bedrock(raw, &typed)
        };
        self.aws_bearer(provider, &typed, api_key);
        let region = region?;
        let credentials = match api_key {
            Some(_) => None,
            None => Some(self.aws_credentials(&typed, &region)?),
        };
        Some(AwsConfig { region, api: api?, credentials })
    }

    /// The address of a row that types none.
    pub(super) fn aws_address(&mut self, aws: &AwsConfig, raw: &RawCloud) -> Option<String> {
        let fips = raw.services.aws.as_ref().and_then(|aws| aws.fips).unwrap_or(false);
        hosts::address(&aws.api, &aws.region, fips)
            .map_err(|wrong| self.complain("aws.fips", wrong))
            .ok()
    }

    /// A signature for one region is none in another.
    pub(super) fn aws_region_of(&mut self, aws: &AwsConfig, base_url: &hyper::Uri) {
        let host = base_url.host().unwrap_or_default().to_ascii_lowercase();
        if let Some(other) = hosts::other_region(&host, &aws.region) {
            let message = format!("is {}, and the host is in {other}", aws.region);
            self.complain("aws.region", message);
        }
    }

    fn aws_region(&mut self, typed: &RawAws) -> Option<Arc<str>> {
        let region = self.required("aws.region", typed.region.as_deref())?;
        if !hosts::is_region(region) {
            let message = format!("must be a region as in us-east-1, is {region:?}");
            self.complain("aws.region", message);
            return None;
        }
        Some(region.into())
    }

    fn bedrock(&mut self, raw: &RawCloud, typed: &RawAws) -> Option<AwsApi> {
        const WORDS: [(&str, &str); 4] = [
            ("converse", "converse"),
            ("invoke", "invoke"),
            ("openai", "openai"),
            ("mantle", "mantle"),
        ];
        for (key, value) in [
            ("aws.endpoint", &typed.endpoint),
            ("aws.container", &typed.container),
            ("aws.inference_component", &typed.inference_component),
        ] {
            if value.is_some() {
                self.complain(key, "is for provider = \"sagemaker\" only");
            }
        }
        let api = self.choice("aws.api", typed.api.as_deref(), "converse", &WORDS);
        if api != "invoke" && typed.shape.is_some() {
            self.complain("aws.shape", "is for api = \"invoke\" only");
        }
        match api {
            "invoke" => self.invoke_shape(raw, typed).map(AwsApi::Invoke),
            "openai" => Some(AwsApi::OpenAi),
            "mantle" => Some(AwsApi::Mantle),
            _ => Some(AwsApi::Converse),
        }
    }

    /// As typed, or by the model's publisher.
    fn invoke_shape(&mut self, raw: &RawCloud, typed: &RawAws) -> Option<InvokeShape> {
        const WORDS: [(&str, Option<InvokeShape>); 3] = [
            ("mistral", Some(InvokeShape::Mistral)),
            ("llama", Some(InvokeShape::Llama)),
            ("openai", Some(InvokeShape::OpenAi)),
        ];
        if typed.shape.is_some() {
            return self.choice("aws.shape", typed.shape.as_deref(), None, &WORDS);
        }
        let model = raw.model.as_deref()?;
        let mut parts = model.rsplit('/').next().unwrap_or(model).split('.');
        let shape = parts.find_map(|part| match part {
            "mistral" => Some(InvokeShape::Mistral),
            "meta" => Some(InvokeShape::Llama),
            "openai" => Some(InvokeShape::OpenAi),
            _ => None,
        });
        if shape.is_none() {
            let message = format!("is required: the model's name, {model:?}, does not tell it");
            self.complain("aws.shape", message);
        }
        shape
    }

    fn sagemaker(&mut self, typed: &RawAws) -> Option<SageMakerEndpoint> {
        const WORDS: [(&str, Container); 2] =
            [("openai", Container::OpenAi), ("tgi", Container::Tgi)];
        for (key, value) in [("aws.api", &typed.api), ("aws.shape", &typed.shape)] {
            if value.is_some() {
                self.complain(key, "is for provider = \"bedrock\" only");
            }
        }
        let container =
            self.choice("aws.container", typed.container.as_deref(), Container::OpenAi, &WORDS);
        let component = typed.inference_component.as_deref();
        let component = component.map(|name| self.endpoint_name("aws.inference_component", name));
        let name = self.required("aws.endpoint", typed.endpoint.as_deref())?;
        let name = self.endpoint_name("aws.endpoint", name)?;
        let component = match component {
            Some(checked) => Some(checked?),
            None => None,
        };
        Some(SageMakerEndpoint { name, container, component })
    }

    fn endpoint_name(&mut self, key: &str, name: &str) -> Option<Arc<str>> {
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if letters && (1..=ENDPOINT_NAME_MAX).contains(&name.len()) {
            return Some(name.into());
        }
        let message = format!("must be at most {ENDPOINT_NAME_MAX} of a-z, A-Z, 0-9 and -");
        self.complain(key, message);
        None
    }

    /// Whether a bearer token proves who asks, and which.
    fn aws_bearer(&mut self, provider: &str, typed: &RawAws, api_key: &mut Option<Secret>) {
        let signs = [&typed.credentials, &typed.profile, &typed.role_arn];
        let says = signs.iter().any(|key| key.is_some());
        if api_key.is_some() {
            if provider == "sagemaker" {
                self.complain("api_key_env", "SageMaker knows no keys, only signed requests");
            } else if says {
                self.complain("aws.credentials", "and a key exclude each other");
            }
            return;
        }
        if provider == "sagemaker" || says {
            return;
        }
        if let Some(token) = self.variable(BEARER) {
            match validate::key(&token) {
                Ok(key) => *api_key = Some(key),
                Err(wrong) => {
                    self.complain("aws.credentials", format!("variable {BEARER} {wrong}"));
                }
            }
        }
    }

    /// A variable of the environment that holds something.
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).ok().filter(|value| !value.trim().is_empty())
    }
}
