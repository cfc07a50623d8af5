//! Which provider a row is of, where that one is, and what its own table says.

use std::sync::Arc;

use super::Checker;
use crate::config::raw::{RawOpenAi, RawOpenRouter, RawServices};
use crate::config::services::{Dialect, Routing};
use crate::config::{CloudService, RawCloud, Secret};

/// Names in `only`, and bytes of one.
const ROUTES_MAX: usize = 16;
const ROUTE_BYTES_MAX: usize = 64;

/// A word of `provider`.
pub(super) struct Provider {
    pub(super) word: &'static str,
    /// Where it is, unless the row says otherwise; None: the row has to, or its table does.
    pub(super) base_url: Option<&'static str>,
    /// How it can be made to fill in, the usual way first; none: a way of its own.
    pub(super) fims: &'static [&'static str],
    family: Family,
    /// The name of the table that belongs to it, and of the feature that some need.
    table: &'static str,
    feature: &'static str,
    /// Whether this binary can speak to it.
    pub(super) built: bool,
}

#[derive(Clone, Copy)]
enum Family {
    OpenAi,
    Mistral,
    DeepSeek,
    OpenRouter,
    Weir,
    Oci,
    Azure,
    Vertex,
    Bedrock,
    SageMaker,
}

/// DeepSeek's FIM route generates no more.
const DEEPSEEK_TOKENS_MAX: i64 = 4096;

/// The first is the default. `nim` is OpenAI's letter without a `suffix`.
pub(super) const PROVIDERS: [Provider; 11] = [
    provider("openai", None, &["suffix", "template", "chat"], Family::OpenAi),
    provider("mistral", Some("https://api.mistral.ai/v1"), &["suffix", "chat"], Family::Mistral),
    provider(
        "deepseek",
        Some("https://api.deepseek.com/beta"),
        &["suffix", "chat"],
        Family::DeepSeek,
    ),
    provider(
        "openrouter",
        Some("https://openrouter.ai/api/v1"),
        &["chat", "template"],
        Family::OpenRouter,
    ),
    provider(
        "nim",
        Some("https://integrate.api.nvidia.com/v1"),
        &["template", "chat"],
        Family::OpenAi,
    ),
    provider("weir", None, &[], Family::Weir),
    Provider { built: cfg!(feature = "oci"), ..provider("oci", None, &["chat"], Family::Oci) },
    Provider {
        built: cfg!(feature = "azure"),
        ..provider("azure", None, &["chat", "suffix", "template"], Family::Azure)
    },
    Provider {
        built: cfg!(feature = "google"),
        feature: "google",
        ..provider("vertex", None, &[], Family::Vertex)
    },
    aws("bedrock", Family::Bedrock),
    aws("sagemaker", Family::SageMaker),
];

const fn provider(
    word: &'static str,
    base_url: Option<&'static str>,
    fims: &'static [&'static str],
    family: Family,
) -> Provider {
    Provider { word, base_url, fims, family, table: word, feature: word, built: true }
}

/// How rows at AWS fill in is told by their API, as for Vertex.
const fn aws(word: &'static str, family: Family) -> Provider {
    Provider {
        table: "aws",
        feature: "aws",
        built: cfg!(feature = "aws"),
        ..provider(word, None, &[], family)
    }
}

impl Provider {
    /// How `service` can be made to fill in; None: nobody knows, since something is wrong with it.
    pub(super) fn fims(&self, service: Option<&CloudService>) -> Option<&'static [&'static str]> {
        match (service, self.family) {
            (Some(CloudService::Aws(aws)), _) => Some(aws.api.fim_words()),
            (Some(CloudService::Vertex(vertex)), _) => Some(vertex.api.fim_words()),
            (None, Family::Bedrock | Family::SageMaker | Family::Vertex) => None,
            _ => Some(self.fims),
        }
    }
}

impl Checker<'_> {
    /// The row of [`PROVIDERS`] that a row names.
    pub(super) fn provider(&mut self, raw: &RawCloud) -> &'static Provider {
        let words: Vec<_> = PROVIDERS.iter().map(|provider| (provider.word, provider)).collect();
        let provider = self.choice("provider", raw.provider.as_deref(), &PROVIDERS[0], &words);
        if !provider.built {
            let feature = provider.feature;
            self.complain("provider", format!("this weir was built without the feature {feature}"));
        }
        self.foreign_tables(&raw.services, provider);
        provider
    }

    /// A table of another provider was not meant.
    fn foreign_tables(&mut self, tables: &RawServices, provider: &Provider) {
        let typed = [
            ("openai", tables.openai.is_some()),
            ("openrouter", tables.openrouter.is_some()),
            ("oci", tables.oci.is_some()),
            ("azure", tables.azure.is_some()),
            ("vertex", tables.vertex.is_some()),
            ("aws", tables.aws.is_some()),
        ];
        let foreign = |(table, typed): &(&str, bool)| *typed && *table != provider.table;
        for (table, _) in typed.into_iter().filter(foreign) {
            let of = PROVIDERS.iter().filter(|provider| provider.table == table);
            let of: Vec<_> = of.map(|provider| format!("{:?}", provider.word)).collect();
            let (of, is) = (of.join(" or "), provider.word);
            self.complain(table, format!("is for provider = {of} only, and this is {is:?}"));
        }
    }

    /// None: something was complained about.
    pub(super) fn service(
        &mut self,
        raw: &RawCloud,
        of: &Provider,
        api_key: &mut Option<Secret>,
    ) -> Option<CloudService> {
        let dialect = |dialect| Some(CloudService::Dialect(Arc::new(dialect)));
        match of.family {
            Family::OpenAi => Some(self.openai(raw.services.openai.as_ref())),
            Family::Mistral => dialect(Dialect::MISTRAL),
            Family::DeepSeek => {
                let max = raw.max_tokens.unwrap_or_default();
                if max > DEEPSEEK_TOKENS_MAX {
                    let message = format!("must be at most {DEEPSEEK_TOKENS_MAX} there, is {max}");
                    self.complain("max_tokens", message);
                }
                dialect(Dialect::DEEPSEEK)
            }
            Family::OpenRouter => {
                let routing = self.routing(raw.services.openrouter.as_ref())?;
                dialect(Dialect { routing: Some(routing), ..Dialect::OPENROUTER })
            }
            Family::Weir => Some(CloudService::Weir),
            Family::Oci => self.oci(raw),
            Family::Azure => self.azure(raw),
            Family::Vertex => self.vertex(raw),
            Family::Bedrock | Family::SageMaker => {
                self.aws(raw, of.word, api_key).map(|aws| CloudService::Aws(aws.into()))
            }
        }
    }

    fn openai(&mut self, typed: Option<&RawOpenAi>) -> CloudService {
        const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
        let Some(typed) = typed else { return CloudService::OpenAi };
        let words = EFFORTS.map(|word| (word, Some(word)));
        let key = "openai.reasoning_effort";
        let effort = self.choice(key, typed.reasoning_effort.as_deref(), None, &words);
        let sampling = typed.sampling.unwrap_or(true);
        CloudService::Dialect(Arc::new(Dialect {
            // What is not sent must not be asked of it either.
            penalties: sampling,
            sampling,
            max_completion_tokens: typed.max_completion_tokens.unwrap_or(false),
            reasoning_effort: effort.map(Arc::from),
            ..Dialect::OPENAI
        }))
    }

    /// Without pinned providers nobody could say who reads a prompt.
    fn routing(&mut self, typed: Option<&RawOpenRouter>) -> Option<Routing> {
        let key = "openrouter.only";
        let only = typed.and_then(|typed| typed.only.as_deref()).unwrap_or_default();
        if only.is_empty() {
            let message =
                "is required: the providers that may read a prompt, as in [\"deepinfra\"]";
            self.complain(key, message);
            return None;
        }
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_/. ".contains(&b);
        let sane =
            |name: &String| (1..=ROUTE_BYTES_MAX).contains(&name.len()) && name.bytes().all(letter);
        if only.len() > ROUTES_MAX || !only.iter().all(sane) {
            let message = format!("must be at most {ROUTES_MAX} names of providers");
            self.complain(key, message);
            return None;
        }
        let zdr = typed.and_then(|typed| typed.zdr).unwrap_or(false);
        Some(Routing { only: only.to_vec(), zdr })
    }
}
