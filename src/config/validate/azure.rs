//! `[cloud.azure]`: where a resource is, and who asks it.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;

use super::Checker;
use super::cloud::may_see_secrets;
use crate::config::raw::RawAzure;
use crate::config::services::{Azure, AzureAuth, Dialect, Entra, EntraIdentity};
use crate::config::{CloudService, RawCloud, Secret};
use crate::policy::site::site;

/// One of Azure's clouds.
#[derive(Clone, Copy)]
struct Partition {
    /// As a row's `realm` and its site have it.
    word: &'static str,
    resources: &'static str,
    authority: &'static str,
    /// What tokens are for.
    audience: &'static str,
}

const PARTITIONS: [Partition; 3] = [
    Partition {
        word: "azure",
        resources: "openai.azure.com",
        authority: "https://login.microsoftonline.com",
        audience: "https://cognitiveservices.azure.com",
    },
    Partition {
        word: "azure-us-gov",
        resources: "openai.azure.us",
        authority: "https://login.microsoftonline.us",
        audience: "https://cognitiveservices.azure.us",
    },
    Partition {
        word: "azure-cn",
        resources: "openai.azure.cn",
        authority: "https://login.chinacloudapi.cn",
        audience: "https://cognitiveservices.azure.cn",
    },
];

/// The metadata service of a virtual machine.
const MACHINE: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    Key,
    ClientSecret,
    ManagedIdentity,
    WorkloadIdentity,
}

const AUTHS: [(&str, Auth); 4] = [
    ("key", Auth::Key),
    ("client-secret", Auth::ClientSecret),
    ("managed-identity", Auth::ManagedIdentity),
    ("workload-identity", Auth::WorkloadIdentity),
];

impl Checker<'_> {
    /// Where the row's resource is; None: it has none, or something was complained about.
    pub(super) fn azure_url(&mut self, raw: &RawCloud) -> Option<String> {
        let azure = raw.services.azure.as_ref()?;
        let Some(resource) = azure.resource.as_deref() else {
            self.complain("azure.resource", "is required, or base_url");
            return None;
        };
        if !is_made_of(resource, 64, b"-") {
            self.complain("azure.resource", "must be the resource's name alone, as in my-resource");
            return None;
        }
        let host = format!("https://{resource}.{}/openai", self.partition(azure).resources);
        if azure.api_version.is_none() {
            return Some(format!("{host}/v1"));
        }
        let deployment = raw.model.as_deref()?;
        if !is_made_of(deployment, 64, b"-_.") {
            self.complain("model", "must be the name of a deployment");
            return None;
        }
        Some(format!("{host}/deployments/{deployment}"))
    }

    fn partition(&mut self, azure: &RawAzure) -> Partition {
        let words = PARTITIONS.map(|partition| (partition.word, partition));
        self.choice("azure.partition", azure.partition.as_deref(), PARTITIONS[0], &words)
    }

    pub(super) fn azure(&mut self, raw: &RawCloud) -> Option<CloudService> {
        let none = RawAzure::default();
        let azure = raw.services.azure.as_ref().unwrap_or(&none);
        let auth = self.choice("azure.auth", azure.auth.as_deref(), Auth::Key, &AUTHS);
        self.azure_unused(azure, auth);
        self.azure_place(raw, azure);
        let (keyed, key) = (raw.api_key_env.is_some() || raw.api_key_file.is_some(), "api_key_env");
        match (auth, keyed) {
            (Auth::Key, false) => {
                self.complain(key, "or api_key_file is required for azure.auth = \"key\"");
            }
            (Auth::Key, true) | (_, false) => {}
            (_, true) => self.complain(key, "and api_key_file are for azure.auth = \"key\""),
        }
        let auth = match auth {
            Auth::Key => AzureAuth::Key,
            auth => AzureAuth::Entra(self.entra(azure, auth)?),
        };
        Some(CloudService::Azure(Arc::new(Azure {
            api_version: self.azure_version(azure),
            dialect: Arc::new(self.azure_dialect(azure)),
            auth,
        })))
    }

    /// A host that weir knows to be in another of Azure's clouds than `partition`.
    fn azure_place(&mut self, raw: &RawCloud, azure: &RawAzure) {
        let partition = self.partition(azure).word;
        let url = raw.base_url.as_deref().and_then(|url| url.parse::<Uri>().ok());
        let Some(Ok(Some(site))) = url.map(|url| site(&url, "")) else { return };
        if site.provider != "azure" {
            self.complain("base_url", "is no host of Azure's");
        } else if site.partition != partition {
            let there = site.partition;
            let message = format!("is {partition}, and the host of base_url is in {there}");
            self.complain("azure.partition", message);
        }
    }

    fn azure_version(&mut self, azure: &RawAzure) -> Option<Arc<str>> {
        let version = azure.api_version.as_deref()?;
        if is_made_of(version, 32, b"-") {
            return Some(version.into());
        }
        self.complain("azure.api_version", "must be a version as in 2024-10-21");
        None
    }

    /// A model that reasons takes no sampling; all of its output, thoughts too, is bounded by a
    /// field of its own.
    fn azure_dialect(&mut self, azure: &RawAzure) -> Dialect {
        const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
        let words = EFFORTS.map(|word| (word, Some(word)));
        let key = "azure.reasoning_effort";
        match self.choice(key, azure.reasoning_effort.as_deref(), None, &words) {
            None => Dialect::OPENAI,
            Some(effort) => Dialect {
                max_completion_tokens: true,
                reasoning_effort: Some(effort.into()),
                sampling: false,
                penalties: false,
                logprobs: None,
                ..Dialect::OPENAI
            },
        }
    }

    /// Keys of another way to authenticate.
    fn azure_unused(&mut self, azure: &RawAzure, auth: Auth) {
        use Auth::{ClientSecret, ManagedIdentity, WorkloadIdentity};
        let all: &[Auth] = &[ClientSecret, WorkloadIdentity, ManagedIdentity];
        let typed = [
            ("azure.tenant_id", &azure.tenant_id, &all[..2]),
            ("azure.client_id", &azure.client_id, all),
            ("azure.client_secret_env", &azure.client_secret_env, &all[..1]),
            ("azure.client_secret_file", &azure.client_secret_file, &all[..1]),
            ("azure.token_file", &azure.token_file, &all[1..2]),
            ("azure.scope", &azure.scope, all),
            ("azure.authority", &azure.authority, &all[..2]),
        ];
        for (key, typed, of) in typed {
            if typed.is_some() && !of.contains(&auth) {
                let word =
                    |auth: &Auth| AUTHS.iter().find(|(_, is)| is == auth).map(|(word, _)| *word);
                let words: Vec<_> = of.iter().filter_map(word).collect();
                self.complain(key, format!("is for azure.auth = {}", words.join(", ")));
            }
        }
    }

    fn entra(&mut self, azure: &RawAzure, auth: Auth) -> Option<Entra> {
        let partition = self.partition(azure);
        let identity = match auth {
            Auth::Key => return None,
            Auth::ClientSecret => {
                let tokens = self.entra_tokens(azure, &partition);
                let client_id =
                    self.entra_id("azure.client_id", &azure.client_id, "AZURE_CLIENT_ID");
                let secret = self.entra_secret(azure);
                EntraIdentity::Secret { tokens: tokens?, client_id: client_id?, secret: secret? }
            }
            Auth::WorkloadIdentity => {
                let tokens = self.entra_tokens(azure, &partition);
                let client_id =
                    self.entra_id("azure.client_id", &azure.client_id, "AZURE_CLIENT_ID");
                let (key, variable) = ("azure.token_file", "AZURE_FEDERATED_TOKEN_FILE");
                let token_file = self.or_variable(key, &azure.token_file, variable);
                let token_file = PathBuf::from(token_file?);
                EntraIdentity::Workload { tokens: tokens?, client_id: client_id?, token_file }
            }
            Auth::ManagedIdentity => self.managed_identity(azure)?,
        };
        let scope = azure.scope.as_deref().unwrap_or(partition.audience);
        let resource = scope.strip_suffix("/.default").unwrap_or(scope).trim_end_matches('/');
        if !resource.starts_with("https://") || !resource.bytes().all(|b| b.is_ascii_graphic()) {
            self.complain("azure.scope", "must be as in https://ai.azure.com/.default");
        }
        Some(Entra { resource: resource.into(), identity })
    }

    /// Where Entra grants tokens. The environment of a pod names the authority too.
    fn entra_tokens(&mut self, azure: &RawAzure, partition: &Partition) -> Option<Uri> {
        let tenant = self.entra_id("azure.tenant_id", &azure.tenant_id, "AZURE_TENANT_ID")?;
        let authority = azure.authority.clone().or_else(|| (self.env)("AZURE_AUTHORITY_HOST").ok());
        let authority = match authority.filter(|host| !host.is_empty()) {
            Some(host) if host.contains("://") => host,
            Some(host) => format!("https://{host}"),
            None => partition.authority.to_owned(),
        };
        let uri = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let uri = uri.parse::<Uri>().ok().filter(may_see_secrets);
        if uri.is_none() {
            let message = "or the variable AZURE_AUTHORITY_HOST must be https:// and a host";
            self.complain("azure.authority", message);
        }
        uri
    }

    /// Ids of tenants and clients; domains are names of tenants too.
    fn entra_id(&mut self, key: &str, typed: &Option<String>, variable: &str) -> Option<Arc<str>> {
        let id = self.or_variable(key, typed, variable)?;
        if is_made_of(&id, 128, b"-.") {
            return Some(id.into());
        }
        self.complain(key, "must be an id as in 11111111-2222-3333-4444-555555555555");
        None
    }

    /// What was typed, or what the variable says that Azure's own libraries read.
    fn or_variable(&mut self, key: &str, typed: &Option<String>, variable: &str) -> Option<String> {
        let found = typed.clone().or_else(|| (self.env)(variable).ok());
        let found = found.filter(|text| !text.is_empty());
        if found.is_none() {
            self.complain(key, format!("is required, or the variable {variable}"));
        }
        found
    }

    fn entra_secret(&mut self, azure: &RawAzure) -> Option<Secret> {
        let [variable, path] = [&azure.client_secret_env, &azure.client_secret_file];
        let typed = variable.is_some() || path.is_some();
        let usual = (!typed).then_some("AZURE_CLIENT_SECRET");
        let variable = variable.as_deref().or(usual);
        let in_env = ("azure.client_secret_env", variable);
        self.key_from(in_env, ("azure.client_secret_file", path.as_deref()))
    }

    /// App Service and its like tell of their endpoint in the environment; without, the machine is
    /// a virtual one.
    fn managed_identity(&mut self, azure: &RawAzure) -> Option<EntraIdentity> {
        let client_id = match &azure.client_id {
            None => None,
            typed => Some(self.entra_id("azure.client_id", typed, "AZURE_CLIENT_ID")?),
        };
        let variable = |name| (self.env)(name).ok().filter(|text: &String| !text.is_empty());
        let told = (variable("IDENTITY_ENDPOINT"), variable("IDENTITY_HEADER"));
        let (endpoint, header) = match told {
            (Some(endpoint), Some(header)) => (endpoint, Some(Secret::new(&header))),
            // Azure Arc tells only an endpoint, and asks for the content of a file of root's.
            (Some(_), None) => {
                let message = "managed identity of Azure Arc is not supported";
                self.complain("azure.auth", message);
                return None;
            }
            (None, _) => (MACHINE.to_owned(), None),
        };
        match endpoint.parse::<Uri>() {
            Ok(endpoint) if endpoint.host().is_some() => {
                Some(EntraIdentity::Managed { endpoint, header, client_id })
            }
            _ => {
                self.complain("azure.auth", "variable IDENTITY_ENDPOINT must be a URL");
                None
            }
        }
    }
}

/// Whether a name is of ASCII letters, digits and these, and not too long.
pub(super) fn is_made_of(name: &str, bytes_max: usize, more: &[u8]) -> bool {
    let fits = (1..=bytes_max).contains(&name.len());
    fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}
