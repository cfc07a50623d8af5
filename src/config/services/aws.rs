//! Rows at AWS: Bedrock, and endpoints of SageMaker.

pub mod profile;

use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;
use profile::SharedFiles;

use crate::config::Secret;

/// One row at AWS.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsConfig {
    /// Whose endpoint it is, and what a signature is made for.
    pub region: Arc<str>,
    pub api: AwsApi,
    /// None: the row's key is shown as a bearer token, or it has none.
    pub credentials: Option<AwsCredentials>,
}

impl AwsConfig {
    /// The services that its keys come from.
    pub(in crate::config) fn credential_services(&self) -> Vec<&Uri> {
        let Some(AwsCredentials { base, roles, sts }) = &self.credentials else {
            return Vec::new();
        };
        let base = match base {
            AwsBase::Keys(_) | AwsBase::Profile { .. } => None,
            AwsBase::WebIdentity { .. } => Some(sts),
            AwsBase::Container { uri, .. } => Some(uri),
            AwsBase::Imds { endpoint } => Some(endpoint),
        };
        let roles = (!roles.is_empty()).then_some(sts);
        base.into_iter().chain(roles).collect()
    }
}

/// Which of AWS's APIs answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsApi {
    /// Bedrock's own, one for all chat models.
    Converse,
    /// The model's own JSON in Bedrock's envelope: the one way to a raw prompt there.
    Invoke(InvokeShape),
    /// `/openai/v1` of bedrock-runtime: chat alone.
    OpenAi,
    /// `/v1` of bedrock-mantle: chat alone.
    Mantle,
    SageMaker(SageMakerEndpoint),
}

impl AwsApi {
    /// What the service is called in the scope of a signature.
    pub fn signing_name(&self) -> &'static str {
        match self {
            Self::Converse | Self::Invoke(_) | Self::OpenAi => "bedrock",
            Self::Mantle => "bedrock-mantle",
            Self::SageMaker(_) => "sagemaker",
        }
    }

    /// How it can fill in the middle; the first is what a row does that does not say.
    pub fn fim_words(&self) -> &'static [&'static str] {
        match self {
            Self::Converse | Self::OpenAi | Self::Mantle => &["chat"],
            Self::Invoke(InvokeShape::OpenAi) => &["template", "chat"],
            Self::Invoke(_) => &["template"],
            Self::SageMaker(endpoint) => match endpoint.container {
                Container::OpenAi => &["template", "suffix", "chat"],
                Container::Tgi => &["template"],
            },
        }
    }
}

/// Whose JSON an invoked model speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvokeShape {
    Mistral,
    Llama,
    /// gpt-oss, and models imported since November 2025.
    OpenAi,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SageMakerEndpoint {
    pub name: Arc<str>,
    pub container: Container,
    /// Which of the models that share the endpoint.
    pub component: Option<Arc<str>>,
}

/// What serves behind an endpoint of SageMaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// vLLM, SGLang, LMI: the body alone tells completions from chat.
    OpenAi,
    /// Text Generation Inference's own `inputs` and `parameters`.
    Tgi,
}

/// Where the keys that sign come from.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsCredentials {
    pub base: AwsBase,
    /// Assumed one after another, the last one signs.
    pub roles: Vec<AwsRole>,
    /// The token service, for web identities and roles.
    pub sts: Uri,
}

/// What needs no other keys.
#[derive(Clone, Debug, PartialEq)]
pub enum AwsBase {
    /// Of the environment: they stay for as long as the process.
    Keys(AwsKeys),
    /// Of a profile in the shared files, read again now and then: tools write short-lived ones.
    Profile {
        files: SharedFiles,
        name: Arc<str>,
    },
    WebIdentity {
        role: AwsRole,
        token_file: PathBuf,
    },
    /// What ECS and EKS give a container.
    Container {
        uri: Uri,
        token: ContainerToken,
    },
    /// What EC2 gives an instance; version 2 of its service alone.
    Imds {
        endpoint: Uri,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct AwsKeys {
    pub id: Arc<str>,
    pub secret: Secret,
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsRole {
    pub arn: Arc<str>,
    /// How the audit log of the account calls us.
    pub session: Arc<str>,
    pub external_id: Option<Arc<str>>,
}

/// What the container's endpoint is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerToken {
    None,
    Fixed(Secret),
    /// It rotates, so it is read for every request.
    File(PathBuf),
}
